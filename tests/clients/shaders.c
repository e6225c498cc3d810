#include "shaders.h"

/* One generated header per shader, each holding the words of NAME_code. */
#include "bars_frag.h"
#include "blur_frag.h"
#include "cells_frag.h"
#include "color_frag.h"
#include "commands_comp.h"
#include "disc_frag.h"
#include "fractal_comp.h"
#include "indirect_vert.h"
#include "input_frag.h"
#include "instanced_vert.h"
#include "life_comp.h"
#include "mesh_vert.h"
#include "nonuniform_frag.h"
#include "plane_vert.h"
#include "quad_vert.h"
#include "texel_frag.h"
#include "texture_frag.h"
#include "transform_comp.h"
#include "triangle_vert.h"
#include "variants_frag.h"

#define SHADER_DEFINE(name) const struct vkh_shader name = {name##_code, sizeof(name##_code)};
SHADERS(SHADER_DEFINE)
#undef SHADER_DEFINE
