/*
 * report.h -- sentences, checks and fatal errors. Everything else that is printed is a table.
 */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>

#define PRINTF_LIKE(text, values) __attribute__((format(printf, text, values)))

/* Escape sequences, or "" where the output is no terminal or NO_COLOR is set. */
struct report_style {
    const char *bold, *dim, *good, *bad, *plain;
};

const struct report_style *report_colours(void);

/* A scenario's heading, and the sentence that says what is about to happen. */
void report_heading(int number, const char *title);
void report_before(const char *format, ...) PRINTF_LIKE(1, 2);

/* What must be true. If it is not, says so, and the program will exit with 1. Returns ok. */
bool report_check(bool ok, const char *format, ...) PRINTF_LIKE(2, 3);

/* What the scenario has shown; printed only if every check since report_heading() held. */
void report_after(const char *format, ...) PRINTF_LIKE(1, 2);

/* A remark that is neither. */
void report_note(const char *format, ...) PRINTF_LIKE(1, 2);

int report_failures(void);

/* Prints "demo: ..." to stderr and exits with 1; exit handlers run. */
_Noreturn void die(const char *format, ...) PRINTF_LIKE(1, 2);

#endif
