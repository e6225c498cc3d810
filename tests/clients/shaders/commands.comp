#version 450
// Writes one indexed draw command per invocation, every third one with no instances, and counts.
layout(local_size_x = 64) in;
struct Command { uint index_count, instance_count, first_index; int vertex_offset; uint first_instance; };
layout(set = 0, binding = 0, std430) writeonly buffer Commands { Command commands[]; };
layout(set = 0, binding = 1, std430) buffer Count { uint count; };
layout(push_constant) uniform Push { uint total; } push;
void main()
{
    uint i = gl_GlobalInvocationID.x;
    if (i >= push.total)
        return;
    commands[i] = Command(i % 2 == 0 ? 3 : 6, i % 3 == 2 ? 0 : 1, 0, 0, i);
    atomicAdd(count, 1);
}
