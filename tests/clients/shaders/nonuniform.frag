#version 450
#extension GL_EXT_nonuniform_qualifier : require
layout(set = 0, binding = 0) uniform sampler2D images[];
layout(location = 0) in vec4 color;
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    ivec2 cell = ivec2(uv * 8.0);
    int index = (cell.x * 5 + cell.y * 3) & 15;
    result = texture(images[nonuniformEXT(index)], uv * 4.0) * color;
}
