#version 450
layout(quads, equal_spacing, ccw) in;
layout(location = 0) out vec4 color;
void main()
{
    vec2 t = gl_TessCoord.xy;
    vec4 a = mix(gl_in[0].gl_Position, gl_in[1].gl_Position, t.x);
    vec4 b = mix(gl_in[3].gl_Position, gl_in[2].gl_Position, t.x);
    gl_Position = mix(a, b, t.y) * vec4(vec2(0.7 + 0.3 * cos(length(t - 0.5) * 9.0)), 1, 1);
    color = vec4(fract(t * 6.0), 0.4, 1);
}
