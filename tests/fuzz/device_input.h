/* Inputs for the fuzz targets of the device: a virtqueue (fuzz_virtqueue.c) and the virtio-gpu
 * model (fuzz_gpu.c). With libFuzzer they come from there; else device_main.c makes them, or reads
 * files.
 */
#ifndef PV_TESTS_FUZZ_DEVICE_INPUT_H
#define PV_TESTS_FUZZ_DEVICE_INPUT_H

#include <stddef.h>
#include <stdint.h>

#define FUZZ_INPUT_MAX 8192u

/* One run. Returns 0; ends the program when something is wrong. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Write an input that makes more sense than bytes at random; returns its size. `random` gives
 * numbers below its argument. */
size_t fuzz_make_input(uint8_t out[FUZZ_INPUT_MAX], uint32_t (*random)(uint32_t limit));

#endif
