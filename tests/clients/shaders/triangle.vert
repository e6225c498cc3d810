#version 450
layout(push_constant) uniform Push { float angle; } push;
layout(location = 0) out vec4 color;
void main()
{
    const vec3 colors[3] = vec3[](vec3(1, 0.2, 0.1), vec3(0.1, 0.9, 0.3), vec3(0.2, 0.3, 1));
    float a = push.angle + float(gl_VertexIndex) * 2.0943951;
    gl_Position = vec4(0.85 * sin(a), -0.85 * cos(a), 0.5, 1);
    color = vec4(colors[gl_VertexIndex], 1);
}
