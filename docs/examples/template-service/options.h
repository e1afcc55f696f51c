/*
 * options.h -- the command line.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "service.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct options {
    const char *address; /* to listen on */
    uint16_t port;       /* 0: any that is free */
    unsigned http_threads;
    unsigned max_connections;
    int64_t timeout_ms; /* of a request */
    int64_t drain_ms;   /* for requests under way when the daemon is told to end */

    const char *database;
    int64_t query_timeout_ms;
    int64_t query_delay_ms;
    int64_t templates;
    int64_t change_every_ms; /* 0: never */

    int64_t ttl_ms;
    int64_t not_found_ttl_ms;
    int64_t stale_if_error_ms;
    int64_t reaper_interval_ms;
    size_t workers;
    size_t max_waiting;
    enum sharing sharing;

    bool daemonize, uses_syslog;
    const char *pid_file; /* NULL: none */
};

/* 0, or the status to exit with after a message: 64 (EX_USAGE) for what makes no sense; -1 after
 * --help or --version, which have been answered. Strings are those of argv. */
int options_read(struct options *options, int argc, char *argv[]);

#endif
