#version 450
layout(constant_id = 0) const float variant = 0.0;
layout(constant_id = 1) const int turns = 1;
layout(location = 0) out vec4 result;
void main()
{
    vec2 p = gl_FragCoord.xy * variant;
    for (int i = 0; i < turns; i++)
        p = vec2(sin(p.y), cos(p.x)) * variant;
    result = vec4(p, variant, 1);
}
