/* The Venus capset (id 4): which wire format, registry and extensions this decoder knows.
 *
 * Filled from the generated tables: what the coder can serialise, whether or not the driver has it.
 */
#ifndef PV_VENUS_CAPSET_H
#define PV_VENUS_CAPSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PV_CAPSET_VENUS      4u
#define PV_CAPSET_VENUS_SIZE 160u

/* Write the capset, PV_CAPSET_VENUS_SIZE bytes of little-endian words. `use_guest_vram`: the guest
 * makes a blob before it allocates the device memory that is to lie in it, and imports it. */
void pv_capset_fill(uint8_t out[PV_CAPSET_VENUS_SIZE], bool use_guest_vram);

#endif
