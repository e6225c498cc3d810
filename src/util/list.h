/* A doubly linked ring of nodes inside the structs that they link.
 *
 * The list head is a node too; an empty list is a head that points at itself. Nothing is allocated
 * and nothing can fail. Not locked: the owner of the list says which lock holds it still.
 */
#ifndef PV_UTIL_LIST_H
#define PV_UTIL_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct pv_list {
    struct pv_list *prev, *next;
};

static inline void pv_list_init(struct pv_list *head)
{
    head->prev = head->next = head;
}

static inline bool pv_list_empty(const struct pv_list *head)
{
    return head->next == head;
}

/* Put `node` at the end. */
static inline void pv_list_append(struct pv_list *head, struct pv_list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Put `node` at the beginning. */
static inline void pv_list_prepend(struct pv_list *head, struct pv_list *node)
{
    pv_list_append(head->next, node);
}

/* Take `node` out; it may be taken out again without harm. */
static inline void pv_list_remove(struct pv_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    pv_list_init(node);
}

/* The struct of type `type` whose member `member` is at `node`. */
#define pv_list_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* `node` walks the list; the body may remove and free it. */
#define pv_list_for_each(node, head)                                                     \
    for (struct pv_list *node = (head)->next, *node##_next = node->next; node != (head); \
         node = node##_next, node##_next = node->next)

#endif
