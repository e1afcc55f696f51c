/*
 * report.c -- sentences, checks and fatal errors.
 *
 * Used by the main thread only, die() excepted. Lines are wrapped at WIDTH columns.
 */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 81

static int failures;         /* of the whole run */
static int failures_earlier; /* of the scenarios before this one */

const struct report_style *report_colours(void)
{
    static const struct report_style plain = {"", "", "", "", ""};
    static const struct report_style ansi = {"\033[1m", "\033[2m", "\033[32m", "\033[31m",
                                             "\033[0m"};
    const char *no_color = getenv("NO_COLOR");
    bool wanted = no_color == NULL || no_color[0] == '\0';
    return wanted && isatty(STDOUT_FILENO) ? &ansi : &plain;
}

/* Prints text as lines of at most WIDTH columns: mark before the first, then blanks. */
static void wrapped(const char *colour, const char *mark, const char *text)
{
    const char *plain = report_colours()->plain;
    printf("   %s%s%s", colour, mark, plain);
    size_t column = 3 + (mark[0] != '\0' ? 2 : 0);
    size_t indent = column;
    for (const char *word = text; *word != '\0';) {
        size_t len = strcspn(word, " ");
        bool first = column == indent;
        if (!first && column + 1 + len > WIDTH) {
            printf("\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        printf("%s%.*s", first ? "" : " ", (int)len, word);
        column += len + !first;
        word += len + strspn(word + len, " ");
    }
    printf("\n");
    fflush(stdout);
}

void report_heading(int number, const char *title)
{
    const struct report_style *style = report_colours();
    printf("\n\n%s%d  %s%s\n", style->bold, number, title, style->plain);
    failures_earlier = failures;
}

void report_before(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("\n");
    wrapped("", "", text);
}

bool report_check(bool ok, const char *format, ...)
{
    if (ok)
        return true;
    char text[1024] = "FAILED: ";
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, sizeof text - used, format, args);
    va_end(args);
    wrapped(report_colours()->bad, "✗ ", text);
    failures++;
    return false;
}

void report_after(const char *format, ...)
{
    if (failures != failures_earlier)
        return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    wrapped(report_colours()->good, "✓ ", text);
}

void report_note(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    wrapped(report_colours()->dim, "· ", text);
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
    fputs("demo: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}
