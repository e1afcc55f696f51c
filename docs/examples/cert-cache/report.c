/*
 * report.c -- lines on stdout. Used by the main thread only, die() excepted.
 */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static int failures;
static int failures_earlier; /* of the scenarios before this one */

void report_check(bool ok, const char *format, ...)
{
    if (ok)
        return;
    va_list args;
    va_start(args, format);
    printf("   ✗ FAILED: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    failures++;
}

void report_line(const char *scenario, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("   %s %-15s ", failures == failures_earlier ? "✓" : "✗", scenario);
    vprintf(format, args);
    printf("\n");
    fflush(stdout);
    va_end(args);
    failures_earlier = failures;
}

int report_failures(void)
{
    return failures;
}

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fputs("cert-cache: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}
