#version 450
// A disc inside the rectangle; outside nothing is written, not even to the stencil buffer.
layout(location = 0) in vec4 color;
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    vec2 d = uv - 0.5;
    if (dot(d, d) > 0.25)
        discard;
    result = color;
}
