/*
 * log.h -- messages for whoever runs the daemon: to stderr, or to syslog.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <syslog.h>

void log_to_syslog(const char *name);

/* priority: LOG_INFO, LOG_WARNING or LOG_ERR of syslog.h. One line, no newline at its end. */
__attribute__((format(printf, 2, 3))) void log_line(int priority, const char *format, ...);

#endif
