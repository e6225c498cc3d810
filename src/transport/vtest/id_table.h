/* Small numbers for objects: what a client names by id.
 *
 * Ids start at 1 and are given out in turn, so that a freed one comes back late and a client that
 * uses it too long gets an error instead of somebody else's object.
 *
 * Ownership: the objects are the caller's.
 * Threads:   none; the caller locks.
 */
#ifndef PV_TRANSPORT_VTEST_ID_TABLE_H
#define PV_TRANSPORT_VTEST_ID_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct pv_id_table {
    void **slots; /* owned; slot i is id i + 1, NULL is free */
    size_t slot_count, used, next;
    size_t max; /* objects at a time */
};

void pv_id_table_init(struct pv_id_table *table, size_t max);
void pv_id_table_finish(struct pv_id_table *table);

/* Returns 0, -ENOSPC if there are `max` objects already, -ENOMEM. */
int pv_id_table_add(struct pv_id_table *table, void *object, uint32_t *out_id);

/* NULL if there is no such id. */
void *pv_id_table_get(const struct pv_id_table *table, uint32_t id);
void *pv_id_table_remove(struct pv_id_table *table, uint32_t id);

/* Walk all objects: start with *cursor = 0; NULL at the end. Removing the one returned is fine. */
void *pv_id_table_walk(const struct pv_id_table *table, uint32_t *cursor);

#endif
