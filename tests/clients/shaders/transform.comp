#version 450
layout(local_size_x = 64) in;
layout(constant_id = 0) const uint factor = 3;
layout(set = 0, binding = 0, std430) buffer Words { uint words[]; };
layout(push_constant) uniform Push { uint count; uint addend; } push;
void main()
{
    uint i = gl_GlobalInvocationID.x;
    if (i < push.count)
        words[i] = words[i] * factor + push.addend;
}
