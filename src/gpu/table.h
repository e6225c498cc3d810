/* A hash table from non-zero 32-bit ids, chosen by a guest, to pointers.
 *
 * Shape:   open addressing, at most half full, hashed with a secret so that a guest cannot choose
 * ids that collide. Threads: one at a time.
 */
#ifndef PV_GPU_TABLE_H
#define PV_GPU_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct pv_table {
    struct pv_table_slot *slots; /* owned; NULL until the first insert */
    size_t room, count;
    uint64_t secret;
};

struct pv_table_slot {
    uint32_t id; /* 0: free */
    void *value;
};

void pv_table_init(struct pv_table *table);
/* Does not look at the values. */
void pv_table_finish(struct pv_table *table);
/* NULL if there is none. */
void *pv_table_get(const struct pv_table *table, uint32_t id);
/* `id` is not 0 and not in the table. -ENOMEM. */
int pv_table_insert(struct pv_table *table, uint32_t id, void *value);
void pv_table_remove(struct pv_table *table, uint32_t id);

#endif
