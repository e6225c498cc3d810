#version 450
// One column per query: its height is the share of the picture that the query counted.
layout(set = 0, binding = 0, std430) readonly buffer Results { uint results[]; };
layout(push_constant) uniform Push { layout(offset = 48) uint count; uint pixels; } push;
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    uint column = min(uint(uv.x * float(push.count)), push.count - 1);
    float height = float(results[column]) / float(push.pixels);
    bool on = 1.0 - uv.y < height;
    result = on ? vec4(0.2, 0.8, 0.4, 1) : vec4(0.1, 0.1, 0.15, 1);
}
