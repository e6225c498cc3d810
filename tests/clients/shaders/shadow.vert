#version 450
layout(push_constant) uniform Push { mat4 transform; } push;
layout(location = 0) in vec3 position;
void main()
{
    gl_Position = push.transform * vec4(position, 1);
}
