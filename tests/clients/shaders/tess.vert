#version 450
layout(push_constant) uniform Push { float angle; } push;
void main()
{
    float a = push.angle + float(gl_VertexIndex) * 1.5707963;
    gl_Position = vec4(0.9 * sin(a), 0.9 * cos(a), 0.5, 1);
}
