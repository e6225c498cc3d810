#version 450
layout(constant_id = 0) const int pattern = 0;
layout(constant_id = 1) const float scale = 1.0;
layout(constant_id = 2) const bool inverted = false;
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    vec2 p = uv * scale;
    vec3 c = vec3(0);
    if (pattern == 0)
        c = vec3(fract(p), 0.5);
    else if (pattern == 1)
        c = vec3(mod(floor(p.x) + floor(p.y), 2.0));
    else if (pattern == 2)
        c = vec3(0.5 + 0.5 * sin(length(p - 0.5 * scale) * 6.0)) * vec3(1, 0.6, 0.2);
    else
        for (int i = 0; i < pattern; i++)
            c += 0.3 * vec3(step(0.5, fract(p.x * float(i))), step(0.5, fract(p.y * float(i))), 0.2);
    result = vec4(inverted ? 1.0 - c : c, 1);
}
