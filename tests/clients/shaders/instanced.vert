#version 450
layout(push_constant) uniform Push { float angle; } push;
layout(location = 0) in vec2 position;
layout(location = 1) in vec4 offset_scale; // per instance: x, y, size, turn
layout(location = 2) in vec4 instance_color;
layout(location = 0) out vec4 color;
void main()
{
    float a = offset_scale.w + push.angle;
    vec2 p = mat2(cos(a), sin(a), -sin(a), cos(a)) * position * offset_scale.z;
    gl_Position = vec4(p + offset_scale.xy, 0.5, 1);
    color = instance_color;
}
