/*
 * The two functions of kv_error.h that take a format and arguments for it.
 *
 * Rust 1.95 can call such functions but not define them. So Rust exports two jumps (variadic.rs) to what is here, and
 * this hands the finished text back to Rust. Nothing in this file is visible outside the library.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define HIDDEN __attribute__((visibility("hidden")))

HIDDEN extern void kvb_rs_set_error(int code, const char *file, int line, const char *func, const char *message);
HIDDEN extern void kvb_rs_log(int level, const char *file, int line, const char *func, const char *message);
HIDDEN extern int kvb_rs_log_wanted(int level);

HIDDEN void kvb_shim_set_error(int code, const char *file, int line, const char *func, const char *format, ...);
HIDDEN void kvb_shim_log(int level, const char *file, int line, const char *func, const char *format, ...);

/* kv_error_t keeps 255 bytes of a message; a little more shows Rust where to cut between characters. */
#define ERROR_BYTES 264

/* A log line longer than this is cut. On the stack, so no more than a thread with a small stack can bear. */
#define LOG_BYTES 4096

/* Makes the text; what a bad format leaves behind is still a string. */
static void format_text(char *buffer, size_t size, const char *format, va_list arguments) {
    buffer[0] = '\0';
    if (format != NULL && vsnprintf(buffer, size, format, arguments) < 0) {
        snprintf(buffer, size, "(message cannot be formatted: %.100s)", format);
    }
}

void kvb_shim_set_error(int code, const char *file, int line, const char *func, const char *format, ...) {
    int saved = errno; /* callers look at it after they have reported */
    char buffer[ERROR_BYTES];
    va_list arguments;
    va_start(arguments, format);
    format_text(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    kvb_rs_set_error(code, file, line, func, buffer);
    errno = saved;
}

void kvb_shim_log(int level, const char *file, int line, const char *func, const char *format, ...) {
    int saved = errno;
    if (kvb_rs_log_wanted(level)) {
        char buffer[LOG_BYTES];
        va_list arguments;
        va_start(arguments, format);
        format_text(buffer, sizeof buffer, format, arguments);
        va_end(arguments);
        kvb_rs_log(level, file, line, func, buffer);
    }
    errno = saved;
}
