#include "gpu/table.h"

#include "util/os.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define FIRST_ROOM 64u

void pv_table_init(struct pv_table *table)
{
    *table = (struct pv_table){0};
    if (pv_random(&table->secret, sizeof(table->secret)) < 0)
        table->secret = pv_now_ns();
}

void pv_table_finish(struct pv_table *table)
{
    free(table->slots);
    *table = (struct pv_table){.secret = table->secret};
}

/* Where `id` would be if nothing was in the way. */
static size_t home_of(const struct pv_table *table, uint32_t id)
{
    uint64_t x = (id ^ table->secret) * UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 32;
    return (size_t)x & (table->room - 1);
}

static size_t find(const struct pv_table *table, uint32_t id)
{
    size_t at = home_of(table, id);
    while (table->slots[at].id != 0 && table->slots[at].id != id)
        at = (at + 1) & (table->room - 1);
    return at;
}

void *pv_table_get(const struct pv_table *table, uint32_t id)
{
    if (id == 0 || table->count == 0)
        return NULL;
    struct pv_table_slot *slot = &table->slots[find(table, id)];
    return slot->id == id ? slot->value : NULL;
}

static int grow(struct pv_table *table)
{
    struct pv_table bigger = *table;
    bigger.room = table->room ? 2 * table->room : FIRST_ROOM;
    bigger.slots = calloc(bigger.room, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < table->room; i++) {
        if (table->slots[i].id != 0)
            bigger.slots[find(&bigger, table->slots[i].id)] = table->slots[i];
    }
    free(table->slots);
    *table = bigger;
    return 0;
}

int pv_table_insert(struct pv_table *table, uint32_t id, void *value)
{
    assert(id != 0 && !pv_table_get(table, id));
    if (2 * (table->count + 1) > table->room) {
        int ret = grow(table);
        if (ret < 0)
            return ret;
    }
    table->slots[find(table, id)] = (struct pv_table_slot){id, value};
    table->count++;
    return 0;
}

void pv_table_remove(struct pv_table *table, uint32_t id)
{
    if (!pv_table_get(table, id))
        return;
    size_t mask = table->room - 1;
    size_t hole = find(table, id);
    table->count--;
    /* Those behind that would not be found across the hole move into it. */
    for (size_t at = (hole + 1) & mask; table->slots[at].id != 0; at = (at + 1) & mask) {
        size_t home = home_of(table, table->slots[at].id);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->slots[hole] = table->slots[at];
            hole = at;
        }
    }
    table->slots[hole] = (struct pv_table_slot){0};
}
