#version 450
layout(input_attachment_index = 0, set = 0, binding = 0) uniform subpassInput scene;
layout(location = 1) in vec2 uv;
layout(location = 0) out vec4 result;
void main()
{
    vec4 c = subpassLoad(scene);
    float light = dot(c.rgb, vec3(0.299, 0.587, 0.114));
    result = vec4(mix(vec3(light) * vec3(1.1, 0.95, 0.7), c.brg, uv.x), 1);
}
