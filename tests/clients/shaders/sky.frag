#version 450
layout(set = 0, binding = 0) uniform samplerCube sky;
layout(set = 0, binding = 1) uniform sampler2DArray layers;
layout(set = 0, binding = 2) uniform sampler3D volume;
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    vec3 direction = vec3(sin(uv.x * 6.2832) * sin(uv.y * 3.1416), cos(uv.y * 3.1416),
                          cos(uv.x * 6.2832) * sin(uv.y * 3.1416));
    vec4 a = texture(sky, direction);
    vec4 b = texture(layers, vec3(uv * 2.0, floor(uv.x * 4.0)));
    vec4 c = texture(volume, vec3(uv, uv.x * uv.y));
    result = uv.y < 0.33 ? a : uv.y < 0.66 ? b : c;
}
