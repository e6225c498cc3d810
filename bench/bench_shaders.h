/* SPIR-V of bench/shaders, compiled at build time. */
#ifndef BENCH_SHADERS_H
#define BENCH_SHADERS_H

#include "vkh.h"

extern const struct vkh_shader flat_vert;
extern const struct vkh_shader flat_frag;

#endif
