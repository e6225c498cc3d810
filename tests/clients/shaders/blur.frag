#version 450
layout(set = 0, binding = 0) uniform sampler2D image;
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    vec2 step = 2.0 / vec2(textureSize(image, 0));
    vec4 sum = vec4(0);
    for (int y = -2; y <= 2; y++)
        for (int x = -2; x <= 2; x++)
            sum += texture(image, uv + vec2(x, y) * step);
    result = sum / 25.0;
}
