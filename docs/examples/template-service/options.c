/*
 * options.c -- one table says what there is, how it is read and what --help prints.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

enum kind { NUMBER, TEXT, FLAG, SHARING };

struct known {
    const char *name, *value, *help;
    enum kind kind;
    size_t offset;
    size_t width;        /* of a number's member */
    int64_t least, most; /* of a number; of SHARING, least is what it sets */
};

#define MEMBER(m) offsetof(struct options, m), sizeof(((struct options *)0)->m)
#define A_DAY_MS ((int64_t)86400 * 1000)

static const struct known all_known[] = {
    {"address", "ADDRESS", "where to listen", TEXT, MEMBER(address), 0, 0},
    {"port", "PORT", "0: any that is free", NUMBER, MEMBER(port), 0, 65535},
    {"http-threads", "N", "threads that speak HTTP", NUMBER, MEMBER(http_threads), 1, 256},
    {"max-connections", "N", "more are not accepted", NUMBER, MEMBER(max_connections), 1, 1000000},
    {"timeout-ms", "MS", "a request that takes longer is answered with 504", NUMBER,
     MEMBER(timeout_ms), 1, A_DAY_MS},
    {"drain-ms", "MS", "how long requests under way may take after SIGTERM", NUMBER,
     MEMBER(drain_ms), 0, A_DAY_MS},
    {"db", "DATABASE", "postgresql://..., or a file for SQLite", TEXT, MEMBER(database), 0, 0},
    {"query-timeout-ms", "MS", "a query that takes longer has failed", NUMBER,
     MEMBER(query_timeout_ms), 1, A_DAY_MS},
    {"query-delay-ms", "MS", "plays a database that is slow", NUMBER, MEMBER(query_delay_ms), 0,
     A_DAY_MS},
    {"templates", "N", "how many a new database gets", NUMBER, MEMBER(templates), 0, 10000000},
    {"change-every-ms", "MS", "demo: all templates change so often; 0: never", NUMBER,
     MEMBER(change_every_ms), 0, A_DAY_MS},
    {"ttl-ms", "MS", "how long a template is fresh", NUMBER, MEMBER(ttl_ms), 1, A_DAY_MS},
    {"not-found-ttl-ms", "MS", "how long it is remembered that there is none", NUMBER,
     MEMBER(not_found_ttl_ms), 0, A_DAY_MS},
    {"stale-if-error-ms", "MS", "how long past that a template answers for a dead database", NUMBER,
     MEMBER(stale_if_error_ms), 0, A_DAY_MS},
    {"reaper-interval-ms", "MS", "between two runs of the cache's reaper; 0: none", NUMBER,
     MEMBER(reaper_interval_ms), 0, A_DAY_MS},
    {"workers", "N", "threads that ask the database, each with a connection", NUMBER,
     MEMBER(workers), 1, 1024},
    {"max-waiting", "N", "queries that may wait for a worker; past that requests are shed", NUMBER,
     MEMBER(max_waiting), 1, 1000000},
    {"no-cache", NULL, "for comparison: every request asks the database", SHARING, MEMBER(sharing),
     SHARE_NO_ANSWER, 0},
    {"no-singleflight", NULL, "for comparison: every miss asks the database", SHARING,
     MEMBER(sharing), SHARE_NO_FETCH, 0},
    {"daemonize", NULL, "go to the background once all is ready", FLAG, MEMBER(daemonize), 0, 0},
    {"pid-file", "FILE", "holds the daemon's process id", TEXT, MEMBER(pid_file), 0, 0},
    {"syslog", NULL, "log there, not to stderr", FLAG, MEMBER(uses_syslog), 0, 0},
};
enum { KNOWN = sizeof all_known / sizeof *all_known };

static struct options defaults(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return (struct options){
        .address = "127.0.0.1",
        .port = 8080,
        .http_threads = cores > 0 && cores < 256 ? (unsigned)cores : 1,
        .max_connections = 16384,
        .timeout_ms = 5000,
        .drain_ms = 10000,
        .database = "templates.db",
        .query_timeout_ms = 2000,
        .templates = 1000,
        .ttl_ms = 30000,
        .not_found_ttl_ms = 10000,
        .stale_if_error_ms = 3600000,
        .reaper_interval_ms = 60000,
        .workers = 8,
        .max_waiting = 4096,
        .sharing = SHARE_ALL,
    };
}

/* ---- help ------------------------------------------------------------------------------------ */

static int64_t number_at(const struct options *options, const struct known *known)
{
    const char *at = (const char *)options + known->offset;
    uint16_t narrow;
    uint32_t middle;
    int64_t wide;
    if (known->width == sizeof narrow)
        return memcpy(&narrow, at, sizeof narrow), narrow;
    if (known->width == sizeof middle)
        return memcpy(&middle, at, sizeof middle), middle;
    return memcpy(&wide, at, sizeof wide), wide;
}

static const char *text_at(const struct options *options, const struct known *known)
{
    const char *text;
    memcpy(&text, (const char *)options + known->offset, sizeof text);
    return text;
}

static void print_help(void)
{
    struct options options = defaults();
    puts("usage: template-service [OPTION]...\n"
         "Serves the templates of a database over HTTP, cached in its own memory.\n");
    for (const struct known *known = all_known; known < all_known + KNOWN; known++) {
        char left[48];
        snprintf(left, sizeof left, "--%s %s", known->name, known->value ? known->value : "");
        printf("  %-28s%s", left, known->help);
        if (known->kind == NUMBER)
            printf(" (%lld)", (long long)number_at(&options, known));
        if (known->kind == TEXT && text_at(&options, known) != NULL)
            printf(" (%s)", text_at(&options, known));
        putchar('\n');
    }
    puts(
        "  --help\n  --version\n\nSIGTERM and SIGINT end it: what is under way is answered first.");
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool read_number(struct options *options, const struct known *known, const char *text)
{
    char *end;
    errno = 0;
    int64_t number = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < known->least ||
        number > known->most) {
        fprintf(stderr, "template-service: --%s: %s is not a number from %lld to %lld\n",
                known->name, text, (long long)known->least, (long long)known->most);
        return false;
    }
    uint16_t narrow = (uint16_t)number;
    uint32_t middle = (uint32_t)number;
    const void *bytes = &number;
    if (known->width == sizeof narrow)
        bytes = &narrow;
    if (known->width == sizeof middle)
        bytes = &middle;
    memcpy((char *)options + known->offset, bytes, known->width);
    return true;
}

static bool read_one(struct options *options, const struct known *known, const char *value)
{
    char *at = (char *)options + known->offset;
    switch (known->kind) {
    case NUMBER: return read_number(options, known, value);
    case TEXT: memcpy(at, &value, sizeof value); return true;
    case FLAG: *(bool *)at = true; return true;
    case SHARING: options->sharing = (enum sharing)known->least; return true;
    }
    return false;
}

int options_read(struct options *options, int argc, char *argv[])
{
    enum { HELP = KNOWN, VERSION };
    struct option names[KNOWN + 3] = {{0}};
    for (int i = 0; i < KNOWN; i++)
        names[i] = (struct option){all_known[i].name, all_known[i].value != NULL, NULL, i};
    names[HELP] = (struct option){"help", no_argument, NULL, HELP};
    names[VERSION] = (struct option){"version", no_argument, NULL, VERSION};
    *options = defaults();
    for (int found; (found = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (found == HELP)
            return print_help(), -1;
        if (found == VERSION)
            return puts("template-service, with libaside " ASIDE_VERSION), -1;
        if (found == '?' || !read_one(options, &all_known[found], optarg))
            return EX_USAGE;
    }
    if (optind == argc)
        return 0;
    fprintf(stderr, "template-service: what is %s?\n", argv[optind]);
    return EX_USAGE;
}
