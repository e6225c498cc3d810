#version 450
layout(push_constant) uniform Push {
    mat4 transform; // model to clip
    vec4 turn;      // model: angles about y and x, height, 1 for the floor
} push;
layout(set = 0, binding = 0) uniform Scene {
    mat4 light; // world to shadow map
    vec4 light_direction;
    vec4 eye;
} scene;
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv_in;
layout(location = 0) out vec3 world;
layout(location = 1) out vec2 uv;
layout(location = 2) out vec3 world_normal;
layout(location = 3) out vec4 in_light;
vec3 turned(vec3 v)
{
    float cy = cos(push.turn.x), sy = sin(push.turn.x), cx = cos(push.turn.y), sx = sin(push.turn.y);
    v = vec3(v.x, cx * v.y - sx * v.z, sx * v.y + cx * v.z);
    return vec3(cy * v.x + sy * v.z, v.y, cy * v.z - sy * v.x);
}
void main()
{
    world = turned(position) + vec3(0, push.turn.z, 0);
    world_normal = turned(normal);
    uv = uv_in;
    in_light = scene.light * vec4(world, 1);
    gl_Position = push.transform * vec4(position, 1);
}
