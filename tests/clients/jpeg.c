/* pv-jpeg FILE: a JPEG as "WIDTH HEIGHT" and R8G8B8, on standard output. */
#include <stdio.h>
/* wants stdio.h before it */
#include <jpeglib.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return 2;
    jpeg.err = jpeg_std_error(&errors); /* ends the program */
    jpeg_create_decompress(&jpeg);
    jpeg_stdio_src(&jpeg, file);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&jpeg);
    printf("%u %u\n", jpeg.output_width, jpeg.output_height);
    JSAMPROW row = malloc(3 * (size_t)jpeg.output_width);
    while (row && jpeg.output_scanline < jpeg.output_height) {
        jpeg_read_scanlines(&jpeg, &row, 1);
        fwrite(row, 3, jpeg.output_width, stdout);
    }
    free(row);
    jpeg_finish_decompress(&jpeg);
    jpeg_destroy_decompress(&jpeg);
    fclose(file);
    return 0;
}
