#version 450
layout(set = 0, binding = 0) uniform samplerBuffer colors;
layout(set = 0, binding = 1) uniform usamplerBuffer indices;
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    ivec2 cell = ivec2(uv * 16.0);
    uint index = texelFetch(indices, cell.y * 16 + cell.x).x;
    result = texelFetch(colors, int(index));
}
