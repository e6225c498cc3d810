#version 450
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    vec3 top = vec3(0.07, 0.09, 0.19), low = vec3(0.35, 0.30, 0.45);
    float glow = exp(-6.0 * dot(uv - vec2(0.5, 0.55), uv - vec2(0.5, 0.55)));
    result = vec4(mix(top, low, uv.y * uv.y) + glow * vec3(0.22, 0.13, 0.12), 1);
}
