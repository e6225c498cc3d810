#version 450
// A rectangle from push constants: two triangles, no vertex buffer.
layout(push_constant) uniform Push {
    vec4 rect; // left, top, right, bottom in clip space
    vec4 color;
    float depth;
} push;
layout(location = 0) out vec4 color;
layout(location = 1) out vec2 uv;
void main()
{
    const vec2 corners[6] = vec2[](vec2(0, 0), vec2(0, 1), vec2(1, 0), vec2(1, 0), vec2(0, 1),
                                   vec2(1, 1));
    uv = corners[gl_VertexIndex];
    color = push.color;
    gl_Position = vec4(mix(push.rect.xy, push.rect.zw, uv), push.depth, 1);
}
