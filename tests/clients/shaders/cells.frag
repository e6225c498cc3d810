#version 450
layout(set = 0, binding = 0, std430) readonly buffer Cells { uint cells[]; };
layout(push_constant) uniform Push { layout(offset = 48) uint size; } push;
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    uvec2 at = min(uvec2(uv * float(push.size)), uvec2(push.size - 1));
    uint cell = cells[at.y * push.size + at.x];
    result = vec4(float(cell & 1u), float(bitCount(cell)) / 8.0, float(cell) / 255.0, 1);
}
