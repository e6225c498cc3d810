/* Log: one line per event on standard error, with level, module and text.
 *
 * Each source file sets PV_LOG_MODULE before it includes this header. Levels are those of
 * docs/architecture.md: info is what a user wants to know; what a guest can trigger at will goes
 * through pv_log_limited() so that a hostile client cannot fill a disk.
 *
 * Threads: any. A line is written with one write(2) and never interleaves with another.
 */
#ifndef PV_UTIL_LOG_H
#define PV_UTIL_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum pv_log_level {
    PV_LOG_ERROR,
    PV_LOG_WARN,
    PV_LOG_INFO,
    PV_LOG_DEBUG,
    PV_LOG_TRACE,
};

/* Lines above this level are dropped. The default is PV_LOG_INFO. */
void pv_log_set_level(enum pv_log_level level);
enum pv_log_level pv_log_get_level(void);

/* Parse "error" … "trace". Returns 0, or -EINVAL if the name is not known. */
int pv_log_parse_level(const char *name, enum pv_log_level *out);

/* Text put in front of every line of this process, for example "client 7: ". Copied; NULL clears.
 */
void pv_log_set_prefix(const char *prefix);

void pv_log(enum pv_log_level level, const char *module, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void pv_log_va(enum pv_log_level level, const char *module, const char *format, va_list args);

/* At most `burst` lines a second for each call site; the next line says how many were left out. */
struct pv_log_limit {
    uint64_t window_start_ns;
    uint32_t lines;
    uint32_t left_out;
};
bool pv_log_limit_pass(struct pv_log_limit *limit, uint32_t burst);

#define pv_log_limited(level, burst, ...)                 \
    do {                                                  \
        static struct pv_log_limit pv_log_limit_here;     \
        if (pv_log_limit_pass(&pv_log_limit_here, burst)) \
            pv_log(level, PV_LOG_MODULE, __VA_ARGS__);    \
    } while (0)

#define pv_error(...) pv_log(PV_LOG_ERROR, PV_LOG_MODULE, __VA_ARGS__)
#define pv_warn(...)  pv_log(PV_LOG_WARN, PV_LOG_MODULE, __VA_ARGS__)
#define pv_info(...)  pv_log(PV_LOG_INFO, PV_LOG_MODULE, __VA_ARGS__)
#define pv_debug(...) pv_log(PV_LOG_DEBUG, PV_LOG_MODULE, __VA_ARGS__)
#define pv_trace(...) pv_log(PV_LOG_TRACE, PV_LOG_MODULE, __VA_ARGS__)

#endif
