#include "gpu/edid.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define BLOCK 128u
/* Of the letters that PNP ids have (UEFI's list), three that are nobody's. */
#define VENDOR "PEA"
/* What a base block's timing descriptor can say. */
#define BASE_SIDE_MAX  4095u
#define BASE_CLOCK_MAX 65535u /* 10 kHz */
#define CLOCK_MIN      1001u  /* 10 kHz; less is taken for nonsense */
/* Reduced blanking, in pixels, lines and microseconds. */
#define H_BLANK       160u
#define H_FRONT       48u
#define H_SYNC        32u
#define V_FRONT       3u
#define V_SYNC        10u /* the number for an aspect ratio that CVT has no name for */
#define V_BACK_MIN    6u
#define V_BLANK_US    460u
#define SCREEN_DPI    96u
#define SCREEN_MM_MIN 10u   /* 0 would mean that it is not known */
#define SCREEN_MM_MAX 2550u /* a byte of centimetres */

struct timing {
    uint32_t width, height;
    uint32_t v_blank;
    uint32_t clock; /* 10 kHz */
    uint32_t width_mm, height_mm;
};

static uint32_t millimetres(uint32_t pixels)
{
    uint32_t mm = (pixels * 254u + SCREEN_DPI * 5u) / (SCREEN_DPI * 10u);
    return mm < SCREEN_MM_MIN ? SCREEN_MM_MIN : mm;
}

static struct timing make_timing(uint32_t width, uint32_t height, uint32_t refresh_mhz)
{
    /* Lines of blanking: as many as pass in 460 µs. Active lines take the rest of the frame. */
    uint64_t frame_ns = UINT64_C(1000000000000) / refresh_mhz;
    uint64_t blank_ns = V_BLANK_US * UINT64_C(1000);
    uint64_t active_ns = frame_ns > 2 * blank_ns ? frame_ns - blank_ns : frame_ns / 2;
    uint32_t v_blank = (uint32_t)(blank_ns * height / active_ns) + 1;
    if (v_blank < V_FRONT + V_SYNC + V_BACK_MIN)
        v_blank = V_FRONT + V_SYNC + V_BACK_MIN;
    uint64_t line = (uint64_t)width + H_BLANK;
    uint64_t least = UINT64_C(1000) * CLOCK_MIN * 10000 / refresh_mhz;
    if (line * (height + v_blank) < least) /* a tiny screen has long pauses */
        v_blank = (uint32_t)(least / line) + 1 - height;
    uint64_t pixels = line * (height + v_blank);
    uint64_t clock = (pixels * refresh_mhz + 5000000u) / 10000000u;
    return (struct timing){
        .width = width,
        .height = height,
        .v_blank = v_blank,
        .clock = clock ? (uint32_t)clock : 1,
        .width_mm = millimetres(width),
        .height_mm = millimetres(height),
    };
}

static bool fits_base(const struct timing *timing)
{
    return timing->width <= BASE_SIDE_MAX && timing->height <= BASE_SIDE_MAX &&
           timing->v_blank <= BASE_SIDE_MAX && timing->clock <= BASE_CLOCK_MAX;
}

static void set_checksum(uint8_t *bytes, size_t size)
{
    uint8_t sum = 0;
    for (size_t i = 0; i + 1 < size; i++)
        sum += bytes[i];
    bytes[size - 1] = (uint8_t)(0x100u - sum);
}

static void put_le16(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

/* ---- base block ---- */

static void put_detailed(uint8_t *to, const struct timing *t)
{
    put_le16(to, t->clock);
    to[2] = (uint8_t)t->width;
    to[3] = H_BLANK;
    to[4] = (uint8_t)(t->width >> 8 << 4 | H_BLANK >> 8);
    to[5] = (uint8_t)t->height;
    to[6] = (uint8_t)t->v_blank;
    to[7] = (uint8_t)(t->height >> 8 << 4 | t->v_blank >> 8);
    to[8] = H_FRONT;
    to[9] = H_SYNC;
    to[10] = (uint8_t)((V_FRONT & 15) << 4 | (V_SYNC & 15));
    to[11] = 0; /* upper bits of the four above */
    to[12] = (uint8_t)t->width_mm;
    to[13] = (uint8_t)t->height_mm;
    to[14] = (uint8_t)(t->width_mm >> 8 << 4 | t->height_mm >> 8);
    to[17] = 0x1a; /* digital separate sync: horizontal positive, vertical negative */
}

static void put_text(uint8_t *to, uint8_t tag, const char *text)
{
    size_t length = strlen(text);
    to[3] = tag;
    memset(to + 5, ' ', 13);
    memcpy(to + 5, text, length);
    if (length < 13)
        to[5 + length] = '\n';
}

/* Smaller modes, so that a guest that keeps its old size after a resize still finds one. */
static void put_standard(uint8_t *to, uint32_t width, uint32_t height)
{
    static const struct {
        uint16_t width, height;
        uint8_t aspect; /* 0 16:10, 1 4:3, 2 5:4, 3 16:9 */
    } modes[] = {
        {1920, 1080, 3}, {1680, 1050, 0}, {1600, 900, 3}, {1440, 900, 0},
        {1280, 1024, 2}, {1280, 800, 0},  {1280, 720, 3},
    };
    memset(to, 0x01, 16);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (modes[i].width > width || modes[i].height > height)
            continue;
        to[0] = (uint8_t)(modes[i].width / 8 - 31);
        to[1] = (uint8_t)(modes[i].aspect << 6); /* 60 Hz */
        to += 2;
    }
}

static uint8_t centimetres(uint32_t mm)
{
    uint32_t cm = (mm + 5) / 10;
    return cm > 255 ? 255 : cm < 1 ? 1 : (uint8_t)cm;
}

/* Five bits a letter, A is 1; most significant byte first. */
static void put_vendor(uint8_t *to)
{
    uint32_t id = 0;
    for (size_t i = 0; i < 3; i++)
        id = id << 5 | (uint32_t)(VENDOR[i] - '@');
    to[0] = (uint8_t)(id >> 8);
    to[1] = (uint8_t)id;
}

static void put_base(uint8_t *out, const struct pv_edid_params *params, const struct timing *native,
                     const struct timing *named, uint8_t extensions)
{
    static const uint8_t header[8] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
    /* sRGB primaries, as feature bit 2 promises */
    static const uint8_t srgb[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
    char text[14];

    memcpy(out, header, sizeof(header));
    put_vendor(out + 8);
    put_le16(out + 10, 1);
    put_le16(out + 12, params->scanout + 1);
    out[16] = 0xff; /* the next is the year of a model, from 1990 */
    out[17] = 35;
    out[18] = 1; /* EDID 1.4 */
    out[19] = 4;
    out[20] = 0xa5; /* digital, 8 bits a channel, DisplayPort */
    out[21] = centimetres(native->width_mm);
    out[22] = centimetres(native->height_mm);
    out[23] = 120;  /* gamma 2.2 */
    out[24] = 0x06; /* sRGB; the first timing is the native one */
    memcpy(out + 25, srgb, sizeof(srgb));
    out[35] = 0x21; /* 640x480 and 800x600 at 60 Hz */
    out[36] = 0x08; /* 1024x768 at 60 Hz */
    put_standard(out + 38, params->width, params->height);
    put_detailed(out + 54, named);
    snprintf(text, sizeof(text), "PearVisor %u", params->scanout + 1);
    put_text(out + 72, 0xfc, text);
    snprintf(text, sizeof(text), "PV%04u", params->scanout + 1);
    put_text(out + 90, 0xff, text);
    out[108 + 3] = 0x10; /* unused */
    out[126] = extensions;
    set_checksum(out, BLOCK);
}

/* ---- DisplayID block ---- */

#define BLOCK_HEADER 3 /* tag, revision, size */

static uint8_t aspect_code(uint32_t width, uint32_t height)
{
    static const uint8_t ratios[][3] = {{1, 1, 0},  {5, 4, 1},   {4, 3, 2},  {15, 9, 3},
                                        {16, 9, 4}, {16, 10, 5}, {64, 27, 6}};
    for (size_t i = 0; i < sizeof(ratios) / sizeof(ratios[0]); i++) {
        if (width * ratios[i][1] == height * ratios[i][0])
            return ratios[i][2];
    }
    return 8; /* not defined */
}

/* Who made it, as in the base block. */
static uint8_t *put_product(uint8_t *to, const struct pv_edid_params *params)
{
    enum { SIZE = 12 };
    to[0] = 0x00;
    to[2] = SIZE;
    to += BLOCK_HEADER;
    memcpy(to, VENDOR, 3);
    put_le16(to + 3, 1);
    put_le16(to + 5, params->scanout + 1);
    to[9] = 0xff; /* the next is the year of a model, from 2000 */
    to[10] = 25;
    to[11] = 0; /* no name: the base block has it */
    return to + SIZE;
}

static uint8_t *put_parameters(uint8_t *to, const struct timing *t)
{
    enum { SIZE = 12 };
    uint32_t wide = t->width > t->height ? t->width : t->height;
    uint32_t narrow = t->width > t->height ? t->height : t->width;
    uint32_t ratio = wide * 100 / narrow - 100;
    to[0] = 0x01;
    to[2] = SIZE;
    to += BLOCK_HEADER;
    put_le16(to, t->width_mm * 10);
    put_le16(to + 2, t->height_mm * 10);
    put_le16(to + 4, t->width);
    put_le16(to + 6, t->height);
    to[9] = 120; /* gamma 2.2 */
    to[10] = ratio < 255 ? (uint8_t)ratio : 255;
    to[11] = 0x77; /* 8 bits a channel */
    return to + SIZE;
}

static uint8_t *put_interface(uint8_t *to)
{
    enum { SIZE = 10 };
    to[0] = 0x0f;
    to[2] = SIZE;
    to += BLOCK_HEADER;
    to[0] = 0x91; /* DisplayPort, one */
    to[1] = 0x12; /* 1.2 */
    to[2] = 0x02; /* RGB with 8 bits */
    return to + SIZE;
}

static void put_preferred(uint8_t *to, const struct timing *t)
{
    to[0] = 0x03; /* Type I detailed timings */
    to[2] = 20;
    to += BLOCK_HEADER;
    put_le16(to, t->clock - 1);
    to[2] = (uint8_t)((t->clock - 1) >> 16);
    to[3] = 0x80 | aspect_code(t->width, t->height); /* preferred */
    put_le16(to + 4, t->width - 1);
    put_le16(to + 6, H_BLANK - 1);
    put_le16(to + 8, (H_FRONT - 1) | 0x8000); /* positive sync */
    put_le16(to + 10, H_SYNC - 1);
    put_le16(to + 12, t->height - 1);
    put_le16(to + 14, t->v_blank - 1);
    put_le16(to + 16, V_FRONT - 1);
    put_le16(to + 18, V_SYNC - 1);
}

static void put_display_id(uint8_t *out, const struct pv_edid_params *params,
                           const struct timing *t)
{
    out[0] = 0x70;      /* DisplayID extension */
    out[1] = 0x13;      /* version 1.3 */
    out[2] = BLOCK - 7; /* of what follows the next two bytes, padded with zeros */
    out[3] = 3;         /* stand-alone display device */
    put_preferred(put_interface(put_parameters(put_product(out + 5, params), t)), t);
    set_checksum(out + 1, BLOCK - 2);
    set_checksum(out, BLOCK);
}

size_t pv_edid_build(const struct pv_edid_params *params, uint8_t out[PV_EDID_SIZE_MAX])
{
    struct timing native = make_timing(params->width, params->height, params->refresh_mhz);
    memset(out, 0, PV_EDID_SIZE_MAX);
    if (fits_base(&native)) {
        put_base(out, params, &native, &native, 0);
        return BLOCK;
    }
    struct timing smaller = make_timing(1920, 1080, 60000);
    smaller.width_mm = native.width_mm < SCREEN_MM_MAX ? native.width_mm : SCREEN_MM_MAX;
    smaller.height_mm = native.height_mm < SCREEN_MM_MAX ? native.height_mm : SCREEN_MM_MAX;
    put_base(out, params, &native, &smaller, 1);
    put_display_id(out + BLOCK, params, &native);
    return 2 * BLOCK;
}
