/* SPIR-V of tests/clients/shaders, compiled at build time; defined in shaders.c. */
#ifndef SHADERS_H
#define SHADERS_H

#include "vkh.h"

#define SHADERS(X)     \
    X(address_comp)    \
    X(bars_frag)       \
    X(blur_frag)       \
    X(cells_frag)      \
    X(challenge_frag)  \
    X(challenge_vert)  \
    X(color_frag)      \
    X(commands_comp)   \
    X(disc_frag)       \
    X(fractal_comp)    \
    X(gradient_frag)   \
    X(indirect_vert)   \
    X(input_frag)      \
    X(instanced_vert)  \
    X(life_comp)       \
    X(lit_frag)        \
    X(lit_vert)        \
    X(mesh_vert)       \
    X(nonuniform_frag) \
    X(plane_vert)      \
    X(quad_vert)       \
    X(shadow_vert)     \
    X(sky_frag)        \
    X(spikes_geom)     \
    X(tess_tesc)       \
    X(tess_tese)       \
    X(tess_vert)       \
    X(texel_frag)      \
    X(texture_frag)    \
    X(transform_comp)  \
    X(triangle_vert)   \
    X(variants_frag)

#define SHADER_DECLARE(name) extern const struct vkh_shader name;
SHADERS(SHADER_DECLARE)
#undef SHADER_DECLARE

#endif
