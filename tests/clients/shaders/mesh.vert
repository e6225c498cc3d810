#version 450
layout(push_constant) uniform Push { mat4 transform; } push;
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 vertex_color;
layout(location = 0) out vec4 color;
void main()
{
    gl_Position = push.transform * vec4(position, 1);
    color = vec4(vertex_color, 1);
}
