#include "bench_shaders.h"

#include "flat_frag.h"
#include "flat_vert.h"

const struct vkh_shader flat_vert = {flat_vert_code, sizeof(flat_vert_code)};
const struct vkh_shader flat_frag = {flat_frag_code, sizeof(flat_frag_code)};
