#version 450
// A floor seen at a low angle, so that all mipmap levels come into use.
layout(push_constant) uniform Push { float angle; } push;
layout(location = 1) out vec2 uv;
void main()
{
    const vec2 corners[6] = vec2[](vec2(-1, 0), vec2(-1, 1), vec2(1, 0), vec2(1, 0), vec2(-1, 1),
                                   vec2(1, 1));
    vec2 p = corners[gl_VertexIndex];
    float w = mix(1.0, 12.0, p.y);
    gl_Position = vec4(p.x * 12.0, mix(0.95, -1.5, p.y), 0.5 * w, w);
    float s = sin(push.angle), c = cos(push.angle);
    uv = mat2(c, s, -s, c) * vec2(p.x * 12.0, p.y * 24.0);
}
