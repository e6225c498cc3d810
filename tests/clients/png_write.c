#include "png_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HASH_BITS = 15,
    MIN_MATCH = 3,
    MAX_MATCH = 258,
    WINDOW = 32768,
};

struct output {
    uint8_t *data; /* owned */
    size_t size, capacity;
    uint64_t bits; /* not written yet, lowest first */
    unsigned bit_count;
};

static void put_byte(struct output *out, uint8_t byte)
{
    if (out->size < out->capacity)
        out->data[out->size] = byte;
    out->size++;
}

static void put_bits(struct output *out, uint32_t value, unsigned count)
{
    out->bits |= (uint64_t)value << out->bit_count;
    out->bit_count += count;
    while (out->bit_count >= 8) {
        put_byte(out, (uint8_t)out->bits);
        out->bits >>= 8;
        out->bit_count -= 8;
    }
}

/* Huffman codes go out highest bit first (RFC 1951, 3.1.1). */
static void put_code(struct output *out, uint32_t code, unsigned count)
{
    uint32_t reversed = 0;
    for (unsigned i = 0; i < count; i++)
        reversed |= (code >> i & 1) << (count - 1 - i);
    put_bits(out, reversed, count);
}

/* RFC 1951, 3.2.6. */
static void put_symbol(struct output *out, uint32_t symbol)
{
    if (symbol < 144)
        put_code(out, 0x30 + symbol, 8);
    else if (symbol < 256)
        put_code(out, 0x190 + symbol - 144, 9);
    else if (symbol < 280)
        put_code(out, symbol - 256, 7);
    else
        put_code(out, 0xc0 + symbol - 280, 8);
}

/* RFC 1951, 3.2.5: both tables are "base, extra bits" with a regular growth. */
static void put_match(struct output *out, uint32_t length, uint32_t distance)
{
    if (length == MAX_MATCH) {
        put_symbol(out, 285);
    } else {
        uint32_t base = 3, code = 257;
        unsigned extra = 0;
        while (length >= base + (1u << extra)) {
            base += 1u << extra;
            code++;
            extra = code < 265 ? 0 : (code - 261) / 4;
        }
        put_symbol(out, code);
        put_bits(out, length - base, extra);
    }
    uint32_t base = 1, code = 0;
    unsigned extra = 0;
    while (distance >= base + (1u << extra)) {
        base += 1u << extra;
        code++;
        extra = code < 4 ? 0 : code / 2 - 1;
    }
    put_code(out, code, 5);
    put_bits(out, distance - base, extra);
}

static uint32_t match_length(const uint8_t *a, const uint8_t *b, size_t limit)
{
    uint32_t length = 0;
    while (length < limit && length < MAX_MATCH && a[length] == b[length])
        length++;
    return length;
}

static void deflate(struct output *out, const uint8_t *data, size_t size, size_t *heads)
{
    put_bits(out, 1, 1); /* last block */
    put_bits(out, 1, 2); /* fixed codes */
    for (size_t at = 0; at < size;) {
        uint32_t length = 0;
        size_t previous = 0;
        if (size - at >= MIN_MATCH) {
            uint32_t key = data[at] | (uint32_t)data[at + 1] << 8 | (uint32_t)data[at + 2] << 16;
            size_t *head = &heads[key * 0x9e3779b1u >> (32 - HASH_BITS)];
            previous = *head; /* position + 1; 0: none */
            *head = at + 1;
            if (previous && at - (previous - 1) <= WINDOW)
                length = match_length(data + at, data + previous - 1, size - at);
        }
        if (length >= MIN_MATCH) {
            put_match(out, length, (uint32_t)(at - (previous - 1)));
            at += length;
        } else {
            put_symbol(out, data[at++]);
        }
    }
    put_symbol(out, 256);
    put_bits(out, 0, 7); /* flush */
}

static uint32_t adler32(const uint8_t *data, size_t size)
{
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < size; i++) {
        a = (a + data[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static uint32_t crc32(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return ~crc;
}

static void store_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void write_chunk(FILE *file, const char *type, const uint8_t *data, size_t size)
{
    uint8_t head[8], tail[4];
    store_u32(head, (uint32_t)size);
    memcpy(head + 4, type, 4);
    store_u32(tail, crc32(crc32(0, head + 4, 4), data, size));
    fwrite(head, 1, sizeof(head), file);
    if (size)
        fwrite(data, 1, size, file);
    fwrite(tail, 1, sizeof(tail), file);
}

/* Rows of RGB with the "up" filter, which turns flat areas into zeros. */
static void filter_rows(uint8_t *to, const uint8_t *pixels, uint32_t width, uint32_t height)
{
    for (uint32_t y = 0; y < height; y++) {
        const uint8_t *row = pixels + (size_t)y * width * 4;
        *to++ = y ? 2 : 0;
        for (uint32_t x = 0; x < width; x++) {
            for (uint32_t c = 0; c < 3; c++)
                *to++ = (uint8_t)(row[x * 4 + c] - (y ? row[x * 4 + c - (size_t)width * 4] : 0));
        }
    }
}

static int write_file(const char *path, const uint8_t header[13], const struct output *out)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return -errno;
    fwrite("\x89PNG\r\n\x1a\n", 1, 8, file);
    write_chunk(file, "IHDR", header, 13);
    write_chunk(file, "IDAT", out->data, out->size);
    write_chunk(file, "IEND", NULL, 0);
    int failed = ferror(file);
    if (fclose(file) != 0 || failed)
        return -EIO;
    return 0;
}

int png_write(const char *path, const uint8_t *pixels, uint32_t width, uint32_t height)
{
    size_t raw_size = ((size_t)width * 3 + 1) * height;
    struct output out = {.capacity = raw_size + raw_size / 8 + 64}; /* at most 9 bits a byte */
    uint8_t *raw = malloc(raw_size);
    size_t *heads = calloc((size_t)1 << HASH_BITS, sizeof(*heads));
    out.data = malloc(out.capacity);
    int ret = -ENOMEM;
    if (!raw || !heads || !out.data)
        goto done;
    filter_rows(raw, pixels, width, height);
    put_byte(&out, 0x78); /* zlib: 32 KiB window */
    put_byte(&out, 0x01);
    deflate(&out, raw, raw_size, heads);
    uint8_t sum[4];
    store_u32(sum, adler32(raw, raw_size));
    for (int i = 0; i < 4; i++)
        put_byte(&out, sum[i]);
    uint8_t header[13] = {0};
    store_u32(header, width);
    store_u32(header + 4, height);
    header[8] = 8; /* bits */
    header[9] = 2; /* RGB */
    ret = write_file(path, header, &out);
done:
    free(raw);
    free(heads);
    free(out.data);
    return ret;
}
