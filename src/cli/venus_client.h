/* Mesa's Venus driver on this machine: the Vulkan driver that PearVisor's clients load.
 */
#ifndef PV_CLI_VENUS_CLIENT_H
#define PV_CLI_VENUS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

struct pv_venus_client {
    char manifest[512]; /* virtio_icd*.json; "" if there is none */
    char library[512];  /* the driver itself; "" if the manifest names one that is not there */
    char version[32];   /* Mesa's, "25.0.7"; "" if the driver does not say */
    char problem[256];  /* set if it cannot be used */
};

/* Look where the Vulkan loader looks. Returns true if a client was found that can be used. */
bool pv_venus_client_find(struct pv_venus_client *out);

/* Compare Mesa versions by major and minor number; an unknown version compares as new. */
bool pv_venus_client_older_than(const struct pv_venus_client *client, int major, int minor);

#endif
