/*
 * log.c -- one line at a time: stderr's buffer is not shared between lines.
 */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>

static bool uses_syslog;

void log_to_syslog(const char *name)
{
    openlog(name, LOG_PID | LOG_NDELAY, LOG_DAEMON);
    uses_syslog = true;
}

void log_line(int priority, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (uses_syslog)
        syslog(priority, "%s", line);
    else
        fprintf(stderr, "template-service: %s\n", line);
}
