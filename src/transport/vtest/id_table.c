#include "transport/vtest/id_table.h"

#include <errno.h>
#include <stdlib.h>

void pv_id_table_init(struct pv_id_table *table, size_t max)
{
    *table = (struct pv_id_table){.max = max};
}

void pv_id_table_finish(struct pv_id_table *table)
{
    free(table->slots);
    *table = (struct pv_id_table){0};
}

/* A quarter of the slots stays free, which keeps the search for one short and ids fresh. */
static int grow_if_crowded(struct pv_id_table *table)
{
    if (table->used < table->slot_count - table->slot_count / 4)
        return 0;
    size_t count = table->slot_count ? table->slot_count * 2 : 64;
    void **slots = realloc(table->slots, count * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    for (size_t i = table->slot_count; i < count; i++)
        slots[i] = NULL;
    table->next = table->slot_count;
    table->slots = slots;
    table->slot_count = count;
    return 0;
}

int pv_id_table_add(struct pv_id_table *table, void *object, uint32_t *out_id)
{
    if (table->used >= table->max)
        return -ENOSPC;
    int ret = grow_if_crowded(table);
    if (ret < 0)
        return ret;

    while (table->slots[table->next])
        table->next = (table->next + 1) % table->slot_count;
    table->slots[table->next] = object;
    table->used++;
    *out_id = (uint32_t)table->next + 1;
    table->next = (table->next + 1) % table->slot_count;
    return 0;
}

void *pv_id_table_get(const struct pv_id_table *table, uint32_t id)
{
    return id > 0 && id <= table->slot_count ? table->slots[id - 1] : NULL;
}

void *pv_id_table_remove(struct pv_id_table *table, uint32_t id)
{
    void *object = pv_id_table_get(table, id);
    if (object) {
        table->slots[id - 1] = NULL;
        table->used--;
    }
    return object;
}

void *pv_id_table_walk(const struct pv_id_table *table, uint32_t *cursor)
{
    while (*cursor < table->slot_count) {
        void *object = table->slots[(*cursor)++];
        if (object)
            return object;
    }
    return NULL;
}
