/* Finding, taking out and putting back structs of a pNext chain.
 *
 * The layer takes a struct out before it calls the driver when the driver would not know it, and
 * puts it back afterwards, because the caller owns the chain and will write it into a reply. Edits
 * of one chain are undone in the reverse order.
 */
#ifndef PV_VULKAN_CHAIN_H
#define PV_VULKAN_CHAIN_H

#include <vulkan/vulkan_core.h>

#include <stddef.h>

/* The first struct of this type behind `head` (a struct with sType and pNext), or NULL. */
static inline void *pv_chain_find(const void *head, VkStructureType type)
{
    const VkBaseInStructure *node = head;
    while ((node = node->pNext)) {
        if (node->sType == type)
            return (void *)node;
    }
    return NULL;
}

struct pv_chain_edit {
    VkBaseOutStructure *before; /* NULL: nothing was done */
    VkBaseOutStructure *next;   /* what stood behind it */
};

/* Take the first struct of this type out. Returns it, or NULL if there is none. */
static inline void *pv_chain_take(void *head, VkStructureType type, struct pv_chain_edit *edit)
{
    VkBaseOutStructure *before = head;
    while (before->pNext && before->pNext->sType != type)
        before = before->pNext;
    VkBaseOutStructure *taken = before->pNext;
    edit->before = taken ? before : NULL;
    edit->next = taken;
    if (taken)
        before->pNext = taken->pNext;
    return taken;
}

/* Put a struct in first place. */
static inline void pv_chain_put(void *head, void *node, struct pv_chain_edit *edit)
{
    edit->before = head;
    edit->next = edit->before->pNext;
    ((VkBaseOutStructure *)node)->pNext = edit->next;
    edit->before->pNext = node;
}

/* Undo either. */
static inline void pv_chain_undo(struct pv_chain_edit *edit)
{
    if (edit->before)
        edit->before->pNext = edit->next;
    edit->before = NULL;
}

#endif
