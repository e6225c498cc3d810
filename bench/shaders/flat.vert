#version 450
layout(set = 0, binding = 0) uniform Block { vec4 offset; } block;
layout(push_constant) uniform Push { vec4 shift; } push;
void main()
{
    // Three corners in one point: nothing to fill, so that only the commands cost time.
    gl_Position = vec4(block.offset.xy + push.shift.xy, 0.5, 1);
}
