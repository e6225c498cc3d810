/* Our terminal in raw mode, for as long as it shows the guest's console.
 *
 * A small process of its own puts the terminal back if we cannot any more (SIGKILL, a crash).
 *
 * Threads: the main thread, before there are others.
 */
#ifndef PV_VM_TERMINAL_H
#define PV_VM_TERMINAL_H

struct pv_terminal;

/* Returns 0, -ENOTTY if `fd` is no terminal, or a negative errno. */
int pv_terminal_raw(int fd, struct pv_terminal **out);
/* As it was. NULL is fine. */
void pv_terminal_restore(struct pv_terminal *terminal);

#endif
