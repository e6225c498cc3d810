/* The virtio-gpu model, with workers that say what the input says. The input is a list of records:
 *
 *   2 bytes    0x0000-0x7fff: a request of so many bytes, at most 1 KiB, which follow;
 *              bit 15: a message of a worker; bits 0-3: which, bits 4-7: what it does instead
 *              (15: ends, 14: reads what it was told); 24 bytes follow: type (beyond the first of
 *              its kind), resource, flags and ring_idx, result, offset or cookie
 */
#include "../unit/gpu_fixture.h"
#include "device_input.h"
#include "util/log.h"
#include "util/os.h"

#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REQUEST_MAX 1024u
#define RECORDS_MAX 1000u
#define WORKER      0x8000u

static struct gpu_fixture fixture;

static uint32_t word_at(const uint8_t *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

static void run_worker(struct gpu_fixture *f, uint32_t what, const uint8_t fields[24])
{
    struct pv_link_message heard, said = {0};
    struct fake_worker *worker = &f->workers[what & 15];
    uint32_t action = what >> 4 & 15;
    int fd = -1;
    if ((what & 15) >= f->worker_count || !worker->link)
        return;
    if (action == 15 || worker->ended) {
        worker_end(f, worker);
        return;
    }
    if (action == 14) {
        while (worker_receive(worker, &heard))
            continue;
        return;
    }
    said.type = PV_LINK_FENCE_DONE + word_at(fields) % 6;
    said.res_id = word_at(fields + 4);
    said.flags = said.ring_idx = word_at(fields + 8);
    said.result = (int32_t)word_at(fields + 12);
    said.offset = word_at(fields + 16) | (uint64_t)word_at(fields + 20) << 32;
    said.cookie = said.offset;
    if (said.type == PV_LINK_BLOB_DONE && action == 13 && pv_shm_create("blob", 65536, &fd) < 0)
        fd = -1;
    worker_send(f, worker, &said, fd);
    if (fd >= 0)
        close(fd);
}

static void run_request(struct gpu_fixture *f, const uint8_t *bytes, size_t size)
{
    if (size >= 4 && word_at(bytes) == PV_CMD_CTX_CREATE && f->worker_count == WORKERS_MAX)
        return;
    if (size >= 4 && (word_at(bytes) & ~1u) == PV_CMD_UPDATE_CURSOR)
        pv_gpu_cursor(f->gpu, bytes, size);
    else
        fixture_send(f, bytes, size);
    /* a window that is mapped in pieces: done, or not */
    if (f->maps + f->unmaps > 0 && f->next_token % 2)
        pv_gpu_window_done(f->gpu, f->next_token % 4 == 1 ? f->map_token : f->unmap_token,
                           f->next_token % 8 == 5 ? -1 : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gpu_fixture *f = &fixture;
    pv_log_set_level(PV_LOG_ERROR);
    if (size < 2)
        return 0;
    fixture_open(f, &(struct gpu_options){.venus = true,
                                          .window = data[0] & 1 ? PV_GPU_WINDOW_DYNAMIC
                                                                : PV_GPU_WINDOW_ARENA,
                                          .scanouts = 2});
    data++;
    size--;
    for (unsigned n = 0; size >= 2 && n < RECORDS_MAX; n++) {
        uint32_t what = data[0] | (uint32_t)data[1] << 8;
        size_t length = what & WORKER ? 24 : what % (REQUEST_MAX + 1);
        data += 2;
        size -= 2;
        if (length > size)
            break;
        if (what & WORKER)
            run_worker(f, what, data);
        else
            run_request(f, data, length);
        data += length;
        size -= length;
    }
    fixture_close(f);
    return 0;
}

/* ---- inputs ---- */

static uint32_t (*below)(uint32_t limit);

static void make_request(union pv_wire_request *request)
{
    static const uint32_t often[] = {PV_CMD_RESOURCE_CREATE_BLOB, PV_CMD_RESOURCE_MAP_BLOB,
                                     PV_CMD_CTX_ATTACH_RESOURCE,  PV_CMD_RESOURCE_UNMAP_BLOB,
                                     PV_CMD_RESOURCE_UNREF,       PV_CMD_SET_SCANOUT_BLOB,
                                     PV_CMD_RESOURCE_FLUSH,       PV_CMD_CTX_CREATE};
    uint32_t *words = (uint32_t *)(void *)request;
    for (size_t i = 0; i < sizeof(*request) / 4; i++)
        words[i] = below(6);
    request->header.type =
        below(2) ? PV_CMD_GET_DISPLAY_INFO + below(15) : PV_CMD_CTX_CREATE + below(12);
    if (below(3))
        request->header.type = often[below(sizeof(often) / sizeof(often[0]))];
    request->header.flags = below(4) ? 0 : below(4);
    request->header.ctx_id = 1 + below(3);
    request->header.ring_idx = (uint8_t)below(3);
    if (request->header.type == PV_CMD_CTX_CREATE) {
        request->ctx_create.context_init = 4;
    } else if (request->header.type == PV_CMD_RESOURCE_CREATE_BLOB) {
        request->create_blob.blob_mem = below(8) ? PV_BLOB_MEM_HOST3D : 1 + below(3);
        request->create_blob.blob_flags = 1;
        request->create_blob.nr_entries = 0;
        request->create_blob.blob_id = below(2);
        request->create_blob.size = 4096 * (1 + below(600));
    } else if (request->header.type == PV_CMD_RESOURCE_MAP_BLOB) {
        request->map_blob.offset = 4096 * (uint64_t)below(64);
    }
}

static size_t make_message(uint8_t *out)
{
    const uint32_t what = WORKER | below(4) | below(16) << 4;
    const uint32_t fields[6] = {below(6), below(6), below(2), below(4) ? 0 : (uint32_t)-12,
                                4096 * (below(4) ? below(64) : 0)};
    out[0] = (uint8_t)what;
    out[1] = (uint8_t)(what >> 8);
    memcpy(out + 2, fields, sizeof(fields));
    if (fields[0] == 0) /* a fence: cookies are small numbers */
        out[2 + 16] = (uint8_t)below(20);
    return 2 + sizeof(fields);
}

size_t fuzz_make_input(uint8_t out[FUZZ_INPUT_MAX], uint32_t (*random)(uint32_t limit))
{
    union pv_wire_request request;
    size_t size = 1;
    below = random;
    out[0] = (uint8_t)below(2);
    while (size + 2 + sizeof(request) <= FUZZ_INPUT_MAX) {
        if (below(3) == 0) {
            size += make_message(out + size);
            continue;
        }
        make_request(&request);
        size_t length = below(30) ? sizeof(request) : below(sizeof(request));
        out[size] = (uint8_t)length;
        out[size + 1] = (uint8_t)(length >> 8);
        memcpy(out + size + 2, &request, length);
        size += 2 + length;
        if (below(100) == 0)
            break;
    }
    return size;
}
