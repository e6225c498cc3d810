#include "transport/replay/replay.h"

#include "util/os.h"
#include "venus/protocol.h"
#include "venus/ring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_NS        10000000000ull
#define RESOURCES_MAX     16u
#define RESOURCE_SIZE_MAX (64u * 1024u * 1024u)
/* Device memory gets res_ids from here on; the recordings name small ones. */
#define FIRST_BLOB_ID 0x10000u

/* ---- looking into commands --------------------------------------------------------------------
 */

/* Only as far as a guest must know its own commands; past the end of a line everything is 0. */
static uint64_t read_at(const struct pv_replay_line *line, size_t offset, size_t size)
{
    uint64_t value = 0;
    if (line->data && offset <= line->size && size <= line->size - offset)
        memcpy(&value, line->data + offset, size);
    return value;
}

static uint32_t command_of(const struct pv_replay_line *line)
{
    return line->size >= 8 ? (uint32_t)read_at(line, 0, 4) : UINT32_MAX;
}

static bool wants_reply(const struct pv_replay_line *line)
{
    return read_at(line, 4, 4) == 1;
}

/* Past sType and a pNext chain in which each struct has one 4-byte member. */
static size_t skip_chain(const struct pv_replay_line *line, size_t offset)
{
    size_t bodies = 0;
    offset += 4;
    while (read_at(line, offset, 8) == 1) {
        offset += 12;
        bodies += 4;
    }
    return offset + 8 + bodies;
}

struct ring_info {
    uint32_t resource;
    uint64_t id, offset, size, head, tail, status, buffer, buffer_size;
};

static struct ring_info ring_info_of(const struct pv_replay_line *line)
{
    size_t at = skip_chain(line, 24); /* type, flags, ring, pointer */
    return (struct ring_info){
        .id = read_at(line, 8, 8),
        .resource = (uint32_t)read_at(line, at + 4, 4),
        .offset = read_at(line, at + 8, 8),
        .size = read_at(line, at + 16, 8),
        .head = read_at(line, at + 32, 8),
        .tail = read_at(line, at + 40, 8),
        .status = read_at(line, at + 48, 8),
        .buffer = read_at(line, at + 56, 8),
        .buffer_size = read_at(line, at + 64, 8),
    };
}

/* ---- the order of the two streams -------------------------------------------------------------
 */

enum action {
    ACTION_SEND,
    ACTION_BLOB,  /* of the memory that the line allocates */
    ACTION_FENCE, /* after the submission of the line */
};

struct step {
    enum action action;
    size_t line;
};

struct plan {
    struct step *steps;
    size_t count;
};

static void add_step(struct plan *plan, enum action action, size_t line)
{
    plan->steps[plan->count++] = (struct step){action, line};
}

/* A command of the context stream goes out when the ring has been written as far as it says, and
 * not before the ones sent before it. What Mesa does after waiting for a position depends on what
 * it wrote last: memory becomes a blob, a submission gets a fence. */
static int make_plan(const struct pv_replay_session *session, struct plan *plan)
{
    plan->count = 0;
    plan->steps = calloc(2 * session->line_count + 1, sizeof(*plan->steps));
    if (!plan->steps)
        return -ENOMEM;
    size_t v = 0, last = SIZE_MAX;
    uint32_t written = 0;
    for (size_t c = 0; c <= session->line_count; c++) {
        const struct pv_replay_line *line = &session->lines[c];
        bool end = c == session->line_count;
        if (!end && line->kind != PV_REPLAY_RING)
            continue;
        for (; v < session->line_count; v++) {
            const struct pv_replay_line *other = &session->lines[v];
            if (other->kind != PV_REPLAY_CONTEXT)
                continue;
            uint32_t type = command_of(other);
            if (type == PV_COMMAND_vkDestroyRingMESA && !end)
                break;
            bool waits = type == PV_COMMAND_vkWaitRingSeqnoMESA;
            if ((waits || type == PV_COMMAND_vkNotifyRingMESA) && !end &&
                (int32_t)((uint32_t)read_at(other, 16, 4) - written) > 0)
                break;
            add_step(plan, ACTION_SEND, v);
            uint32_t before = last < c ? command_of(&session->lines[last]) : UINT32_MAX;
            if (waits && before == PV_COMMAND_vkAllocateMemory)
                add_step(plan, ACTION_BLOB, last);
            else if (waits && before == PV_COMMAND_vkQueueSubmit)
                add_step(plan, ACTION_FENCE, last);
        }
        if (end)
            break;
        add_step(plan, ACTION_SEND, c);
        written += (uint32_t)line->size;
        last = c;
    }
    return 0;
}

/* ---- the guest --------------------------------------------------------------------------------
 */

struct shm {
    uint32_t id;
    uint64_t size;
    uint8_t *map; /* owned */
};

struct reply_place {
    uint32_t resource;
    uint64_t offset, size;
};

struct player {
    const struct pv_replay_session *session;
    const struct pv_replay_params *params;
    struct pv_replay_result *result;
    struct pv_context *ctx;
    struct shm shm[RESOURCES_MAX];
    unsigned shm_count;
    struct ring_info info;
    uint8_t *ring; /* into the ring's shared memory; NULL without a ring */
    uint32_t tail;
    struct reply_place places[2]; /* of the context stream and of the ring */
    uint64_t reply_bytes;         /* seen so far */
    uint32_t next_blob;
    uint32_t timeline;      /* ring_idx of the first queue that has one */
    uint64_t deadline_ns;   /* of the command being run */
    _Atomic uint64_t fence; /* last cookie signalled */
    atomic_bool failed;
};

static void on_fence(void *data, uint32_t ring_idx, uint64_t cookie)
{
    struct player *player = data;
    atomic_store(&player->fence, cookie);
}

static void on_failed(void *data, const char *reason)
{
    struct player *player = data;
    snprintf(player->result->reason, sizeof(player->result->reason), "%s", reason);
    atomic_store(&player->failed, true);
}

static bool is_late(void *data)
{
    struct player *player = data;
    return pv_now_ns() > player->deadline_ns;
}

static struct shm *find_shm(struct player *player, uint32_t id)
{
    for (unsigned i = 0; i < player->shm_count; i++) {
        if (player->shm[i].id == id)
            return &player->shm[i];
    }
    return NULL;
}

static void want_shm(struct player *player, uint32_t id, uint64_t offset, uint64_t size)
{
    if (id == 0 || offset > RESOURCE_SIZE_MAX || size > RESOURCE_SIZE_MAX)
        return;
    struct shm *shm = find_shm(player, id);
    if (!shm) {
        if (player->shm_count == RESOURCES_MAX)
            return;
        shm = &player->shm[player->shm_count++];
        *shm = (struct shm){.id = id};
    }
    if (shm->size < offset + size)
        shm->size = offset + size;
}

/* Every resource that the session names, as large as it must be. */
static int make_shm(struct player *player)
{
    for (size_t i = 0; i < player->session->line_count; i++) {
        const struct pv_replay_line *line = &player->session->lines[i];
        if (line->kind == PV_REPLAY_REPLY)
            continue;
        if (command_of(line) == PV_COMMAND_vkCreateRingMESA) {
            struct ring_info info = ring_info_of(line);
            want_shm(player, info.resource, info.offset, info.size);
        } else if (command_of(line) == PV_COMMAND_vkSetReplyCommandStreamMESA) {
            want_shm(player, (uint32_t)read_at(line, 16, 4), read_at(line, 20, 8),
                     read_at(line, 28, 8));
        }
    }
    for (unsigned i = 0; i < player->shm_count; i++) {
        struct shm *shm = &player->shm[i];
        int fd = -1;
        int ret = pv_context_create_blob(player->ctx, shm->id, 0, shm->size, PV_BLOB_MAPPABLE, &fd);
        void *map = NULL;
        if (ret == 0) {
            ret = pv_shm_map(fd, shm->size, &map);
            close(fd);
        }
        if (ret == 0)
            shm->map = map;
        else if (ret != -EINVAL) /* a recording may name an empty one */
            return ret;
    }
    return 0;
}

/* ---- replies ----------------------------------------------------------------------------------
 */

static void note_reply_place(struct player *player, const struct pv_replay_line *line)
{
    if (command_of(line) != PV_COMMAND_vkSetReplyCommandStreamMESA)
        return;
    bool ring = line->kind == PV_REPLAY_RING && !player->params->direct;
    player->places[ring] = (struct reply_place){
        .resource = (uint32_t)read_at(line, 16, 4),
        .offset = read_at(line, 20, 8),
        .size = read_at(line, 28, 8),
    };
}

static void hand_out_reply(struct player *player, size_t index)
{
    const struct pv_replay_line *line = &player->session->lines[index];
    bool ring = line->kind == PV_REPLAY_RING && !player->params->direct;
    const struct reply_place *place = &player->places[ring];
    struct pv_context_stats stats;
    pv_context_get_stats(player->ctx, &stats);
    uint64_t size = stats.reply_bytes - player->reply_bytes;
    player->reply_bytes = stats.reply_bytes;
    struct shm *shm = find_shm(player, place->resource);
    if (!player->params->reply || !shm || !shm->map || place->offset > shm->size ||
        size > shm->size - place->offset)
        return;
    player->params->reply(player->params->data, player->session, index, shm->map + place->offset,
                          size);
}

/* ---- the ring ---------------------------------------------------------------------------------
 */

static _Atomic uint32_t *ring_word(struct player *player, uint64_t offset)
{
    return (_Atomic uint32_t *)(void *)(player->ring + offset);
}

static void find_ring(struct player *player, const struct pv_replay_line *line)
{
    struct ring_info info = ring_info_of(line);
    struct shm *shm = find_shm(player, info.resource);
    if (atomic_load(&player->failed) || !shm || !shm->map)
        return; /* a context that has not failed has checked the layout */
    player->info = info;
    player->ring = shm->map + info.offset;
    player->tail = 0;
}

/* The ring has executed everything up to `position`. */
static int wait_head(struct player *player, uint32_t position)
{
    const struct timespec nap = {.tv_nsec = 20000};
    for (unsigned i = 0;; i++) {
        uint32_t head =
            atomic_load_explicit(ring_word(player, player->info.head), memory_order_acquire);
        if ((int32_t)(head - position) >= 0)
            return 0;
        if (atomic_load(&player->failed))
            return -EIO;
        if (is_late(player))
            return -ETIMEDOUT;
        if (i > 1000)
            nanosleep(&nap, NULL);
        else
            pv_cpu_relax();
    }
}

/* vkNotifyRingMESA, which goes past the ring. */
static int notify_if_idle(struct player *player)
{
    uint32_t status =
        atomic_load_explicit(ring_word(player, player->info.status), memory_order_seq_cst);
    if (!(status & PV_RING_STATUS_IDLE))
        return 0;
    uint32_t words[6] = {PV_COMMAND_vkNotifyRingMESA};
    memcpy(&words[2], &player->info.id, sizeof(player->info.id));
    words[4] = player->tail;
    return pv_context_submit(player->ctx, words, sizeof(words));
}

static int send_on_ring(struct player *player, const struct pv_replay_line *line)
{
    uint32_t size = (uint32_t)line->size, buffer_size = (uint32_t)player->info.buffer_size;
    if (line->size > buffer_size)
        return -EMSGSIZE;
    int ret = wait_head(player, player->tail + size - buffer_size);
    if (ret < 0)
        return ret;
    uint8_t *buffer = player->ring + player->info.buffer;
    for (uint32_t i = 0; i < size; i++)
        buffer[(player->tail + i) & (buffer_size - 1)] = line->data[i];
    player->tail += size;
    atomic_store_explicit(ring_word(player, player->info.tail), player->tail, memory_order_seq_cst);
    return notify_if_idle(player);
}

/* ---- steps ------------------------------------------------------------------------------------
 */

/* Those that make sense with a ring only. */
static bool is_about_rings(uint32_t type)
{
    switch (type) {
    case PV_COMMAND_vkCreateRingMESA:
    case PV_COMMAND_vkDestroyRingMESA:
    case PV_COMMAND_vkNotifyRingMESA:
    case PV_COMMAND_vkWriteRingExtraMESA:
    case PV_COMMAND_vkSubmitVirtqueueSeqnoMESA:
    case PV_COMMAND_vkWaitVirtqueueSeqnoMESA:
    case PV_COMMAND_vkWaitRingSeqnoMESA:
        return true;
    default:
        return false;
    }
}

static int submit(struct player *player, const struct pv_replay_line *line)
{
    int ret = pv_context_submit(player->ctx, line->data, line->size);
    if (command_of(line) == PV_COMMAND_vkCreateRingMESA)
        find_ring(player, line);
    else if (command_of(line) == PV_COMMAND_vkDestroyRingMESA)
        player->ring = NULL;
    return ret < 0 ? ret : is_late(player) ? -ETIMEDOUT : 0;
}

static int send_line(struct player *player, size_t index)
{
    const struct pv_replay_line *line = &player->session->lines[index];
    if (player->params->direct && is_about_rings(command_of(line)))
        return 0;
    player->result->commands++;
    note_reply_place(player, line);
    bool ring = line->kind == PV_REPLAY_RING && player->ring;
    int ret = ring ? send_on_ring(player, line) : submit(player, line);
    if (ret < 0)
        return ret;
    if (command_of(line) == PV_COMMAND_vkGetDeviceQueue2 && !player->timeline && line->size > 48 &&
        read_at(line, 28, 8) == 1)
        player->timeline = (uint32_t)read_at(line, 48, 4);
    if (!wants_reply(line))
        return 0;
    ret = ring ? wait_head(player, player->tail) : 0;
    if (ret == 0)
        hand_out_reply(player, index);
    return ret;
}

/* The object id is the last thing in the command. */
static int make_blob(struct player *player, const struct pv_replay_line *line)
{
    size_t at = skip_chain(line, 24);
    bool exported = at > 36;
    uint32_t flags = PV_BLOB_MAPPABLE;
    if (exported)
        flags |= PV_BLOB_SHAREABLE | PV_BLOB_CROSS_DEVICE;
    int fd = -1;
    int ret =
        pv_context_create_blob(player->ctx, player->next_blob++, read_at(line, line->size - 8, 8),
                               read_at(line, at, 8), flags, &fd);
    if (ret == 0) {
        player->result->blobs++;
        close(fd);
    }
    return ret == -EIO ? ret : 0;
}

static int make_fence(struct player *player)
{
    const struct timespec nap = {.tv_nsec = 100000};
    if (!player->timeline)
        return 0;
    uint64_t cookie = player->result->fences + 1;
    int ret = pv_context_create_fence(player->ctx, player->timeline, cookie);
    while (ret == 0 && atomic_load(&player->fence) < cookie) {
        nanosleep(&nap, NULL);
        if (is_late(player))
            ret = -ETIMEDOUT;
    }
    if (ret == 0)
        player->result->fences++;
    return ret;
}

static int run_step(struct player *player, const struct step *step)
{
    uint64_t timeout = player->params->timeout_ns;
    player->deadline_ns = pv_now_ns() + (timeout ? timeout : TIMEOUT_NS);
    switch (step->action) {
    case ACTION_SEND:
        return send_line(player, step->line);
    case ACTION_BLOB:
        return make_blob(player, &player->session->lines[step->line]);
    case ACTION_FENCE:
        return make_fence(player);
    }
    return -EINVAL;
}

static int play(struct player *player)
{
    struct plan plan;
    int ret = make_shm(player);
    if (ret < 0)
        return ret;
    ret = make_plan(player->session, &plan);
    for (size_t i = 0; ret == 0 && i < plan.count; i++)
        ret = run_step(player, &plan.steps[i]);
    free(plan.steps);
    if (ret == 0 && player->ring)
        ret = wait_head(player, player->tail);
    return ret;
}

int pv_replay_run(const struct pv_replay_session *session, const struct pv_replay_params *params,
                  struct pv_replay_result *result)
{
    struct pv_replay_result unused;
    struct player player = {
        .session = session,
        .params = params,
        .result = result ? result : &unused,
        .next_blob = FIRST_BLOB_ID,
    };
    memset(player.result, 0, sizeof(*player.result));
    const struct pv_context_params context = {
        .id = 1,
        .name = session->name,
        .caps = params->caps,
        .device_index = params->device_index,
        .offer_dma_buf = params->offer_dma_buf,
        .fence_signalled = on_fence,
        .failed = on_failed,
        .abandoned = is_late,
        .data = &player,
    };
    int ret = pv_context_create(&context, &player.ctx);
    if (ret < 0)
        return ret;
    ret = play(&player);
    pv_context_get_stats(player.ctx, &player.result->stats);
    player.deadline_ns = 0; /* destroying waits for nothing */
    pv_context_destroy(player.ctx);
    for (unsigned i = 0; i < player.shm_count; i++) {
        if (player.shm[i].map)
            pv_shm_unmap(player.shm[i].map, player.shm[i].size);
    }
    return atomic_load(&player.failed) ? -EIO : ret;
}
