/* The picture that `pearvisor doctor --guest` has a guest render: noise that a seed decides.
 *
 * The host picks the seed when the guest is already running, so the picture cannot be known before;
 * the guest's GPU computes it in a fragment shader (tests/clients/shaders/challenge.frag), the host
 * with this. Integers only: both must agree bit for bit.
 */
#ifndef PV_VM_CHALLENGE_H
#define PV_VM_CHALLENGE_H

#include <stdint.h>

#define PV_CHALLENGE_SIZE 256u /* pixels, both ways */
/* The client prints this line, then the driver's id and the device's name, then raw pixels. */
#define PV_CHALLENGE_MAGIC "pearvisor challenge 1"

static inline uint32_t pv_challenge_mix(uint32_t x)
{
    x ^= x >> 16;
    x *= UINT32_C(0x7feb352d);
    x ^= x >> 15;
    x *= UINT32_C(0x846ca68b);
    x ^= x >> 16;
    return x;
}

/* Bytes R, G, B, A from the lowest to the highest. */
static inline uint32_t pv_challenge_pixel(uint32_t seed, uint32_t x, uint32_t y)
{
    return pv_challenge_mix(x + pv_challenge_mix(y + pv_challenge_mix(seed)));
}

#endif
