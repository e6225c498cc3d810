#version 450
// One step of a cellular automaton from one buffer to another.
layout(local_size_x = 64) in;
layout(set = 0, binding = 0, std430) readonly buffer From { uint from[]; };
layout(set = 0, binding = 1, std430) writeonly buffer To { uint to[]; };
layout(push_constant) uniform Push { uint size; } push;
void main()
{
    uint i = gl_GlobalInvocationID.x, n = push.size;
    if (i >= n * n)
        return;
    uint x = i % n, y = i / n, sum = 0;
    for (uint dy = n - 1; dy <= n + 1; dy++)
        for (uint dx = n - 1; dx <= n + 1; dx++)
            sum += from[(y + dy) % n * n + (x + dx) % n] & 1u;
    sum -= from[i] & 1u;
    uint alive = sum == 3 || (sum == 2 && (from[i] & 1u) == 1) ? 1 : 0;
    to[i] = (from[i] << 1 & 0xffu) | alive; // the older bits are the cell's history
}
