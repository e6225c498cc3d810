#version 450
layout(push_constant) uniform Push { layout(offset = 64) vec4 turn; } push;
layout(set = 0, binding = 0) uniform Scene {
    mat4 light;
    vec4 light_direction;
    vec4 eye;
} scene;
layout(set = 0, binding = 1) uniform sampler2D surface;
layout(set = 0, binding = 2) uniform sampler2D shadow_map;
layout(location = 0) in vec3 world;
layout(location = 1) in vec2 uv;
layout(location = 2) in vec3 world_normal;
layout(location = 3) in vec4 in_light;
layout(location = 0) out vec4 result;
float lit_share()
{
    vec2 at = in_light.xy * 0.5 + 0.5;
    vec2 texel = 1.0 / vec2(textureSize(shadow_map, 0));
    float sum = 0.0;
    for (int y = -1; y <= 1; y++)
        for (int x = -1; x <= 1; x++)
            sum += texture(shadow_map, at + vec2(x, y) * texel * 1.5).x + 0.002 > in_light.z ? 1.0 : 0.0;
    return sum / 9.0;
}
void main()
{
    bool floor_part = push.turn.w > 0.5;
    vec3 n = normalize(world_normal), to_eye = normalize(scene.eye.xyz - world);
    vec3 to_light = scene.light_direction.xyz, half_way = normalize(to_light + to_eye);
    vec3 base = texture(surface, uv).rgb;
    base = floor_part ? mix(vec3(0.16, 0.19, 0.26), vec3(0.42, 0.46, 0.55), step(0.45, base.r))
                      : mix(vec3(0.95, 0.30, 0.12), vec3(1.0, 0.72, 0.28), smoothstep(0.3, 0.7, base.r));
    float light = lit_share();
    float diffuse = max(dot(n, to_light), 0.0) * light;
    float shine = pow(max(dot(n, half_way), 0.0), 60.0) * light * (floor_part ? 0.15 : 0.9);
    float rim = pow(1.0 - max(dot(n, to_eye), 0.0), 3.0) * (floor_part ? 0.0 : 0.35);
    vec3 color = base * (0.22 + 0.95 * diffuse) + vec3(shine) + rim * vec3(0.45, 0.6, 1.0);
    // The floor fades into the background, and lets a little of what is mirrored in it through.
    float fade = floor_part ? smoothstep(9.0, 3.0, length(world.xz)) * 0.86 : 1.0;
    result = vec4(color, fade);
}
