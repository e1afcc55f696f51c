/*
 * syslog_to_file.c -- preloaded: what a program says to syslog(3) goes to the file that SYSLOG_FILE names,
 * a line each: facility, priority, name, message. So no test needs a system's own log, nor writes to it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>

static const char *name = "?";
static int facility = LOG_USER;

void openlog(const char *its_name, int options, int its_facility)
{
    (void)options;
    name = its_name;
    facility = its_facility;
}

void vsyslog(int priority, const char *format, va_list rest)
{
    const char *path = getenv("SYSLOG_FILE");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file)
        return;
    fprintf(file, "%d %d %s ", facility >> 3, LOG_PRI(priority), name);
    vfprintf(file, format, rest);
    fputc('\n', file);
    fclose(file);
}

void syslog(int priority, const char *format, ...)
{
    va_list rest;
    va_start(rest, format);
    vsyslog(priority, format, rest);
    va_end(rest);
}

/* Which one it is called as, with _FORTIFY_SOURCE, is between the compiler and the C library. */
void __syslog_chk(int priority, int flag, const char *format, ...);
void __syslog_chk(int priority, int flag, const char *format, ...)
{
    va_list rest;
    (void)flag;
    va_start(rest, format);
    vsyslog(priority, format, rest);
    va_end(rest);
}
