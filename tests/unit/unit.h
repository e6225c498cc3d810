/* cmocka wants these before its own header. */
#ifndef PV_TESTS_UNIT_H
#define PV_TESTS_UNIT_H

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#endif
