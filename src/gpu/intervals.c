#include "gpu/intervals.h"

#include "util/os.h"

#include <stddef.h>

void pv_intervals_init(struct pv_intervals *tree)
{
    tree->root = NULL;
    if (pv_random(&tree->random, sizeof(tree->random)) < 0)
        tree->random = pv_now_ns();
    tree->random |= 1; /* xorshift does not leave 0 */
}

static uint64_t next_random(struct pv_intervals *tree)
{
    tree->random ^= tree->random << 13;
    tree->random ^= tree->random >> 7;
    tree->random ^= tree->random << 17;
    return tree->random;
}

static bool before(const struct pv_interval *a, const struct pv_interval *b)
{
    return a->start != b->start ? a->start < b->start : (uintptr_t)a < (uintptr_t)b;
}

static void update(struct pv_interval *node)
{
    const struct pv_interval *children[2] = {node->left, node->right};
    node->max_end = node->end;
    node->max_size = node->end - node->start;
    for (int i = 0; i < 2; i++) {
        if (children[i] && children[i]->max_end > node->max_end)
            node->max_end = children[i]->max_end;
        if (children[i] && children[i]->max_size > node->max_size)
            node->max_size = children[i]->max_size;
    }
}

/* Everything before `at` to `left`, the rest to `right`. */
static void split(struct pv_interval *node, const struct pv_interval *at, struct pv_interval **left,
                  struct pv_interval **right)
{
    if (!node) {
        *left = *right = NULL;
    } else if (before(node, at)) {
        split(node->right, at, &node->right, right);
        *left = node;
        update(node);
    } else {
        split(node->left, at, left, &node->left);
        *right = node;
        update(node);
    }
}

static struct pv_interval *merge(struct pv_interval *left, struct pv_interval *right)
{
    if (!left || !right)
        return left ? left : right;
    if (left->priority > right->priority) {
        left->right = merge(left->right, right);
        update(left);
        return left;
    }
    right->left = merge(left, right->left);
    update(right);
    return right;
}

void pv_intervals_insert(struct pv_intervals *tree, struct pv_interval *node)
{
    struct pv_interval *left, *right;
    node->left = node->right = NULL;
    node->priority = next_random(tree);
    update(node);
    split(tree->root, node, &left, &right);
    tree->root = merge(merge(left, node), right);
}

static struct pv_interval *without(struct pv_interval *root, const struct pv_interval *node)
{
    if (root == node)
        return merge(root->left, root->right);
    if (before(node, root))
        root->left = without(root->left, node);
    else
        root->right = without(root->right, node);
    update(root);
    return root;
}

void pv_intervals_remove(struct pv_intervals *tree, struct pv_interval *node)
{
    tree->root = without(tree->root, node);
}

struct pv_interval *pv_intervals_first(const struct pv_intervals *tree, uint64_t start,
                                       uint64_t end)
{
    struct pv_interval *node = tree->root;
    while (node) {
        if (node->left && node->left->max_end > start) {
            /* Something on the left ends behind `start`. Should it begin behind `end`, so does all
             * that follows it. */
            node = node->left;
        } else if (node->start < end && node->end > start) {
            return node;
        } else if (node->start >= end) {
            return NULL;
        } else {
            node = node->right;
        }
    }
    return NULL;
}

struct pv_interval *pv_intervals_fit(const struct pv_intervals *tree, uint64_t size)
{
    struct pv_interval *node = tree->root;
    while (node && node->max_size >= size) {
        if (node->left && node->left->max_size >= size)
            node = node->left;
        else if (node->end - node->start >= size)
            return node;
        else
            node = node->right;
    }
    return NULL;
}

struct query {
    uint64_t start, end;
    bool (*visit)(struct pv_interval *node, void *data);
    void *data;
};

static bool visit_below(struct pv_interval *node, const struct query *query)
{
    if (!node || node->max_end <= query->start)
        return false;
    if (visit_below(node->left, query))
        return true;
    if (node->start >= query->end)
        return false;
    if (node->end > query->start && query->visit(node, query->data))
        return true;
    return visit_below(node->right, query);
}

bool pv_intervals_visit(const struct pv_intervals *tree, uint64_t start, uint64_t end,
                        bool (*visit)(struct pv_interval *node, void *data), void *data)
{
    const struct query query = {start, end, visit, data};
    return visit_below(tree->root, &query);
}
