/*
 * report.h -- one line a scenario, checks, and fatal errors.
 */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>

#define PRINTF_LIKE(text, values) __attribute__((format(printf, text, values)))

/* What must be true. If it is not, says so, and the program will exit with 1. */
void report_check(bool ok, const char *format, ...) PRINTF_LIKE(2, 3);

/* The line of a scenario; its mark tells whether every check since the last line held. */
void report_line(const char *scenario, const char *format, ...) PRINTF_LIKE(2, 3);

int report_failures(void);

/* Prints "cert-cache: ..." to stderr and exits with 1. */
_Noreturn void die(const char *format, ...) PRINTF_LIKE(1, 2);

#endif
