/* The files of the page (src/display/web), which are part of the program: made by
 * src/display/web/embed.py. */
#ifndef PV_DISPLAY_WEB_PAGE_H
#define PV_DISPLAY_WEB_PAGE_H

#include <stddef.h>

struct pv_web_file {
    const char *path, *type;
    const unsigned char *data;
    size_t size;
};

extern const struct pv_web_file pv_web_files[];
extern const size_t pv_web_file_count;

#endif
