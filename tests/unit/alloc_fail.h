/* Allocations that fail: for tests linked with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc. */
#ifndef PV_TESTS_ALLOC_FAIL_H
#define PV_TESTS_ALLOC_FAIL_H

/* The n-th allocation from now fails, by any thread; 0: none does. */
void alloc_fail_in(int n);
/* Has it happened? */
int alloc_failed(void);

#endif
