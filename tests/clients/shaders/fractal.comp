#version 450
layout(local_size_x = 8, local_size_y = 8) in;
layout(set = 0, binding = 0, rgba8) uniform writeonly image2D image;
layout(push_constant) uniform Push { float angle; } push;
void main()
{
    ivec2 size = imageSize(image);
    ivec2 at = ivec2(gl_GlobalInvocationID.xy);
    if (any(greaterThanEqual(at, size)))
        return;
    vec2 z = (vec2(at) + 0.5) / float(min(size.x, size.y)) * 3.0 - vec2(1.5);
    vec2 c = 0.7885 * vec2(cos(push.angle + 2.2), sin(push.angle + 2.2));
    int i = 0;
    for (; i < 96 && dot(z, z) < 16.0; i++)
        z = vec2(z.x * z.x - z.y * z.y, 2.0 * z.x * z.y) + c;
    float t = float(i) / 96.0;
    imageStore(image, at, vec4(t * t, sqrt(t), 1.0 - t, 1.0));
}
