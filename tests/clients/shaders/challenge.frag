#version 450
/* The same arithmetic as pv_challenge_pixel() in src/vm/challenge.h: integers only, so exact. */
layout(push_constant) uniform Push { uint seed; } push;
layout(location = 0) out uvec4 color;

uint mix_bits(uint x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

void main()
{
    uint x = uint(gl_FragCoord.x), y = uint(gl_FragCoord.y);
    uint pixel = mix_bits(x + mix_bits(y + mix_bits(push.seed)));
    color = uvec4(pixel, pixel >> 8, pixel >> 16, pixel >> 24) & 255u;
}
