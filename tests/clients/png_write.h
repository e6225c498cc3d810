/* Writes RGBA8 pixels as a PNG file, with no library. The compressor is a plain one (one fixed
 * Huffman block, short look-back): good enough for pictures of tests. */
#ifndef PNG_WRITE_H
#define PNG_WRITE_H

#include <stdint.h>

/* pixels: width * height * 4 bytes, top row first; alpha is dropped. Returns 0 or -errno. */
int png_write(const char *path, const uint8_t *pixels, uint32_t width, uint32_t height);

#endif
