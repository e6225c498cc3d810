/* noVNC's modules, from the folder where they are: $PEARVISOR_NOVNC, our data folder, or that of
 * Debian's package novnc.
 *
 * Trust:   paths come from the network. Only files below core/ and vendor/ whose names end in .js
 *          are read, wherever links may lead.
 * Threads: any.
 */
#ifndef PV_DISPLAY_WEB_SCRIPTS_H
#define PV_DISPLAY_WEB_SCRIPTS_H

#include <stddef.h>

struct pv_web_scripts;

/* -ENOENT, with a line in the log that says what to install, if there is no noVNC; -ENOMEM. */
int pv_web_scripts_create(struct pv_web_scripts **out);
void pv_web_scripts_destroy(struct pv_web_scripts *scripts); /* NULL is fine */

/* The text of a script, for example "core/rfb.js"; free() it. NULL if there is no such one. */
char *pv_web_scripts_read(const struct pv_web_scripts *scripts, const char *path, size_t *size);

#endif
