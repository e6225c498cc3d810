/* pv-threads: many threads that record, submit, create and destroy at once on one device.
 *
 *   pv-threads [--threads N] [--iterations N]
 *
 * Each iteration of each thread makes its own buffers, image, pipelines and descriptor sets, runs a
 * compute shader and draws a triangle, checks both results, and destroys everything. The queue is
 * shared under a mutex, as Vulkan asks; nothing else is.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shaders.h"
#include "vkh.h"

enum { COUNT = 4096, SIZE = 64, MAX_THREADS = 64 };

struct worker {
    struct vkh vk;
    pthread_t thread;
    uint32_t index, iterations;
    const uint8_t *reference; /* borrowed: the pixels that every draw must give */
};

struct compute_job {
    struct vkh_buffer words;
    uint32_t factor, addend;
};

static struct compute_job record_compute(struct vkh *vk, VkCommandBuffer commands, uint32_t seed)
{
    struct compute_job job = {.factor = seed % 61 + 2, .addend = seed};
    const VkSpecializationMapEntry entry = {0, 0, 4};
    const VkSpecializationInfo constants = {1, &entry, 4, &job.factor};
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    job.words = vkh_buffer(vk, COUNT * 4, VK_BUFFER_USAGE_STORAGE_BUFFER_BIT, VKH_HOST_MEMORY);
    for (uint32_t i = 0; i < COUNT; i++)
        ((uint32_t *)job.words.map)[i] = i ^ seed;
    struct vkh_set set = vkh_set(vk, &type, 1);
    vkh_set_buffer(vk, set.set, 0, type, job.words.buffer);
    VkPipelineLayout layout = vkh_pipeline_layout(vk, &set.layout, 1, 8);
    VkPipeline pipeline = vkh_compute_pipeline(vk, &transform_comp, layout, &constants);
    const uint32_t push[2] = {COUNT, job.addend};
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &set.set, 0,
                            NULL);
    vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_ALL, 0, sizeof(push), push);
    vkCmdDispatch(commands, COUNT / 64, 1, 1);
    vkh_barrier(commands);
    return job;
}

static void check_compute(const struct compute_job *job, uint32_t seed)
{
    const uint32_t *words = job->words.map;
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t wanted = (i ^ seed) * job->factor + job->addend;
        if (words[i] != wanted)
            vkh_fail("compute with seed %u: word %u is %u instead of %u", seed, i, words[i],
                     wanted);
    }
}

static struct vkh_buffer record_triangle(struct vkh *vk, VkCommandBuffer commands)
{
    static const float clear[4] = {0.2f, 0.2f, 0.2f, 1};
    const float angle = 0.3f;
    const struct vkh_image_params image_params = {
        .format = VK_FORMAT_R8G8B8A8_UNORM,
        .width = SIZE,
        .height = SIZE,
        .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
    };
    const struct vkh_pass_params pass_params = {
        .color = image_params.format,
        .final_layout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
    };
    struct vkh_image image = vkh_image(vk, &image_params);
    VkRenderPass pass = vkh_render_pass(vk, &pass_params);
    VkFramebuffer framebuffer = vkh_framebuffer(vk, pass, &image.view, 1, SIZE, SIZE);
    VkPipelineLayout layout = vkh_pipeline_layout(vk, NULL, 0, 4);
    const struct vkh_pipeline_params pipeline_params = {
        .vertex = &triangle_vert,
        .fragment = &color_frag,
        .layout = layout,
        .pass = pass,
    };
    VkPipeline pipeline = vkh_graphics_pipeline(vk, &pipeline_params);
    struct vkh_buffer pixels =
        vkh_buffer(vk, SIZE * SIZE * 4, VK_BUFFER_USAGE_TRANSFER_DST_BIT, VKH_HOST_MEMORY);
    vkh_begin_pass(commands, pass, framebuffer, SIZE, SIZE, clear, VK_SUBPASS_CONTENTS_INLINE);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, pipeline);
    vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_ALL, 0, sizeof(angle), &angle);
    vkCmdDraw(commands, 3, 1, 0, 0);
    vkCmdEndRenderPass(commands);
    vkh_copy_to_buffer(commands, &image, &pixels);
    return pixels;
}

static void iterate(struct worker *worker, uint32_t iteration)
{
    struct vkh *vk = &worker->vk;
    size_t mark = vkh_mark(vk);
    uint32_t seed = worker->index * 1000003u + iteration * 17;
    VkCommandBuffer commands = vkh_begin(vk);
    struct compute_job job = record_compute(vk, commands, seed);
    struct vkh_buffer pixels = record_triangle(vk, commands);
    vkh_submit_wait(vk, commands);
    check_compute(&job, seed);
    if (memcmp(pixels.map, worker->reference, SIZE * SIZE * 4) != 0)
        vkh_fail("thread %u, iteration %u: the triangle differs", worker->index, iteration);
    vkh_release(vk, mark);
}

static void *work(void *data)
{
    struct worker *worker = data;
    for (uint32_t i = 0; i < worker->iterations; i++)
        iterate(worker, i);
    return NULL;
}

static uint8_t *draw_reference(struct vkh *vk)
{
    size_t mark = vkh_mark(vk);
    uint8_t *reference = malloc(SIZE * SIZE * 4);
    if (!reference)
        vkh_fail("out of memory");
    VkCommandBuffer commands = vkh_begin(vk);
    struct vkh_buffer pixels = record_triangle(vk, commands);
    vkh_submit_wait(vk, commands);
    memcpy(reference, pixels.map, SIZE * SIZE * 4);
    vkh_release(vk, mark);
    return reference;
}

int main(int argc, char **argv)
{
    uint32_t thread_count = 8, iterations = 50;
    vkh_set_program(argv[0]);
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        uint32_t value = (uint32_t)vkh_parse_size(vkh_option_value(argc, argv, &i));
        if (strcmp(name, "--threads") == 0 && value > 0 && value <= MAX_THREADS) {
            thread_count = value;
        } else if (strcmp(name, "--iterations") == 0) {
            iterations = value;
        } else {
            fprintf(stderr, "usage: pv-threads [--threads 1..%d] [--iterations N]\n", MAX_THREADS);
            return 2;
        }
    }
    struct vkh vk;
    vkh_init(&vk, NULL);
    uint8_t *reference = draw_reference(&vk);
    static struct worker workers[MAX_THREADS];
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < thread_count; i++) {
        workers[i] = (struct worker){
            .index = i,
            .iterations = iterations,
            .reference = reference,
        };
        vkh_child_init(&workers[i].vk, &vk);
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            vkh_fail("thread %u does not start", i);
    }
    for (uint32_t i = 0; i < thread_count; i++) {
        pthread_join(workers[i].thread, NULL);
        vkh_finish(&workers[i].vk);
    }
    printf("%u threads, %u iterations each: ok, %.1f iterations/s\n", thread_count, iterations,
           thread_count * iterations * 1e9 / (double)(vkh_now_ns() - start));
    free(reference);
    vkh_finish(&vk);
    return 0;
}
