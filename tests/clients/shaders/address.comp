#version 450
#extension GL_EXT_buffer_reference : require
layout(local_size_x = 64) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { uint words[]; };
layout(push_constant) uniform Push { Words to; uint size; uint frame; } push;
void main()
{
    uint i = gl_GlobalInvocationID.x, x = i % push.size, y = i / push.size;
    if (y < push.size)
        push.to.words[i] = (x * x + y * y + push.frame) / 64u & 0xffu;
}
