/* pv-syncobj: GPU work behind points of DRM timelines, which is what explicit sync between programs
 * and compositors (linux-drm-syncobj-v1) is made of.
 *
 *   pv-syncobj [--node /dev/dri/renderD128]
 *
 * One device draws and another shows, as two processes would. Each round they hand a buffer over
 * and back:
 *
 *   drawn     the GPU's work becomes a point: fence -> sync_fd -> syncobj -> timeline
 *   shown     the GPU waits for a point:      timeline -> syncobj -> sync_fd -> semaphore
 *
 * Fences, because Mesa's Venus waits for the work itself when it exports a semaphore; 25.0.7 also
 * when it exports a fence, so that a point that comes early is only seen with later ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <drm.h>

#include "vkh.h"

enum {
    ROUNDS = 10,
    SIZE = 16 << 20, /* bytes */
    FILLS = 32, /* with nothing, before the value of the round: a point that comes early shows it */
};

static const uint64_t limit_ns = 10ull * 1000000000;

/* ---- the kernel's side ---- */

static int node = -1;

static void drm(unsigned long request, void *argument, const char *what)
{
    int ret;
    do {
        ret = ioctl(node, request, argument);
    } while (ret < 0 && errno == EINTR);
    if (ret < 0)
        vkh_fail("%s: %s", what, strerror(errno));
}

static void open_node(const char *path)
{
    node = open(path, O_RDWR | O_CLOEXEC);
    if (node < 0)
        vkh_skip("%s: %s", path, strerror(errno));
    struct drm_get_cap cap = {.capability = DRM_CAP_SYNCOBJ_TIMELINE};
    drm(DRM_IOCTL_GET_CAP, &cap, "asking for timelines");
    if (!cap.value)
        vkh_skip("%s has no timelines", path);
}

static uint32_t new_syncobj(void)
{
    struct drm_syncobj_create create = {0};
    drm(DRM_IOCTL_SYNCOBJ_CREATE, &create, "a new syncobj");
    return create.handle;
}

/* Point 0 of a syncobj is what it is without a timeline. */
static void transfer(uint32_t from, uint64_t from_point, uint32_t to, uint64_t to_point)
{
    struct drm_syncobj_transfer info = {
        .src_handle = from,
        .src_point = from_point,
        .dst_handle = to,
        .dst_point = to_point,
    };
    drm(DRM_IOCTL_SYNCOBJ_TRANSFER, &info, "from a syncobj to another");
}

static void wait_point(uint32_t timeline, uint64_t point)
{
    struct drm_syncobj_timeline_wait wait = {
        .handles = (uintptr_t)&timeline,
        .points = (uintptr_t)&point,
        .count_handles = 1,
        .timeout_nsec = (int64_t)(vkh_now_ns() + limit_ns),
    };
    drm(DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &wait, "waiting for a point");
}

/* ---- between Vulkan and points; scratch is a syncobj ---- */

struct gpu {
    struct vkh vk;
    PFN_vkGetFenceFdKHR get_fd;
    PFN_vkImportSemaphoreFdKHR import_fd;
    VkSemaphore wait;
    VkFence done;
    struct vkh_buffer buffer;
};

static void init_gpu(struct gpu *gpu)
{
    static const char *const extensions[] = {
        VK_KHR_EXTERNAL_FENCE_FD_EXTENSION_NAME,
        VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME,
    };
    vkh_init(&gpu->vk, &(struct vkh_params){
                           .device_extensions = extensions,
                           .device_extension_count = VKH_COUNT(extensions),
                       });
    gpu->get_fd = (PFN_vkGetFenceFdKHR)vkGetDeviceProcAddr(gpu->vk.device, "vkGetFenceFdKHR");
    gpu->import_fd =
        (PFN_vkImportSemaphoreFdKHR)vkGetDeviceProcAddr(gpu->vk.device, "vkImportSemaphoreFdKHR");
    const VkExportFenceCreateInfo export = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_FENCE_CREATE_INFO,
        .handleTypes = VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    const VkFenceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO,
        .pNext = &export,
    };
    VKH_CHECK(vkCreateFence(gpu->vk.device, &info, NULL, &gpu->done));
    VKH_KEEP(&gpu->vk, FENCE, gpu->done);
    gpu->wait = vkh_semaphore(&gpu->vk);
    gpu->buffer = vkh_buffer(&gpu->vk, SIZE, VK_BUFFER_USAGE_TRANSFER_DST_BIT, VKH_HOST_MEMORY);
}

static void export_point(struct gpu *gpu, uint32_t scratch, uint32_t timeline, uint64_t point)
{
    const VkFenceGetFdInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_FENCE_GET_FD_INFO_KHR,
        .fence = gpu->done,
        .handleType = VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    struct drm_syncobj_handle handle = {
        .handle = scratch,
        .flags = DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE,
    };
    VKH_CHECK(gpu->get_fd(gpu->vk.device, &info, &handle.fd));
    drm(DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &handle, "a sync_fd into a syncobj");
    close(handle.fd);
    transfer(scratch, 0, timeline, point);
}

static void import_point(struct gpu *gpu, uint32_t scratch, uint32_t timeline, uint64_t point)
{
    transfer(timeline, point, scratch, 0);
    struct drm_syncobj_handle handle = {
        .handle = scratch,
        .flags = DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE,
        .fd = -1,
    };
    drm(DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &handle, "a sync_fd out of a syncobj");
    const VkImportSemaphoreFdInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR,
        .semaphore = gpu->wait,
        .flags = VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
        .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
        .fd = handle.fd,
    };
    VKH_CHECK(gpu->import_fd(gpu->vk.device, &info)); /* the fd is the driver's now */
}

/* ---- the rounds ---- */

/* Fill the buffer `fills` times with nothing, then with value; returns before that is done. */
static VkCommandBuffer start_fill(struct gpu *gpu, uint32_t fills, uint32_t value, bool wait)
{
    VkCommandBuffer commands = vkh_begin(&gpu->vk);
    for (uint32_t i = 0; i <= fills; i++) {
        vkCmdFillBuffer(commands, gpu->buffer.buffer, 0, VK_WHOLE_SIZE, i == fills ? value : 0);
        vkh_barrier(commands);
    }
    VKH_CHECK(vkEndCommandBuffer(commands));
    const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .waitSemaphoreCount = wait ? 1 : 0,
        .pWaitSemaphores = &gpu->wait,
        .pWaitDstStageMask = &stage,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };
    vkh_queue_submit(&gpu->vk, &info, gpu->done);
    return commands;
}

static void expect_filled(const struct gpu *gpu, uint32_t value, const char *what)
{
    uint32_t got = ((const volatile uint32_t *)gpu->buffer.map)[SIZE / 4 - 1];
    if (got != value)
        vkh_fail("round %u: %s: the buffer holds %u", value, what, got);
}

static void run_rounds(struct gpu *program, struct gpu *compositor)
{
    uint32_t scratch = new_syncobj(), acquire = new_syncobj(), release = new_syncobj();
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        if (i > 1)
            import_point(program, scratch, release, i - 1);
        VkCommandBuffer drawn = start_fill(program, FILLS, i, i > 1);
        export_point(program, scratch, acquire, i);

        import_point(compositor, scratch, acquire, i);
        VkCommandBuffer shown = start_fill(compositor, 0, i, true);
        export_point(compositor, scratch, release, i);

        wait_point(i % 2 ? acquire : release, i);
        expect_filled(program, i, "drawn");
        wait_point(release, i);
        expect_filled(compositor, i, "shown");
        vkFreeCommandBuffers(program->vk.device, program->vk.command_pool, 1, &drawn);
        vkFreeCommandBuffers(compositor->vk.device, compositor->vk.command_pool, 1, &shown);
    }
}

int main(int argc, char **argv)
{
    const char *path = "/dev/dri/renderD128";
    vkh_set_program(argv[0]);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--node") == 0) {
            path = vkh_option_value(argc, argv, &i);
        } else {
            fprintf(stderr, "usage: pv-syncobj [--node PATH]\n");
            return 2;
        }
    }
    open_node(path);
    static struct gpu program, compositor;
    init_gpu(&program);
    init_gpu(&compositor);
    uint64_t start = vkh_now_ns();
    run_rounds(&program, &compositor);
    printf("%d rounds ok, %.1f ms each\n", ROUNDS, (double)(vkh_now_ns() - start) / 1e6 / ROUNDS);
    vkh_finish(&compositor.vk);
    vkh_finish(&program.vk);
    close(node);
    return 0;
}
