/* Between the generated and the hand-written part of the null driver. */
#ifndef PV_TESTS_NULL_INTERNAL_H
#define PV_TESTS_NULL_INTERNAL_H

#include "null/null_driver.h"
#include "null/null_entries.h" /* generated */

struct null_entry {
    const char *name;
    PFN_vkVoidFunction function;
};
extern const struct null_entry null_entries[];
extern const unsigned null_entry_count;
extern const VkExtensionProperties null_extensions[];
extern const uint32_t null_extension_count;

/* `what` is given this handle: it must be 0 or alive, and of this type. */
void null_use(const char *what, uint64_t handle, VkObjectType type);
/* The same, and it is gone afterwards. */
void null_destroy(const char *what, uint64_t handle, VkObjectType type);
/* Is this the call that shall fail? */
bool null_fails(void);

#endif
