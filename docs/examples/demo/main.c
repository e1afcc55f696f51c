/*
 * main.c -- the demo: what libaside is for, on real input, each figure measured in this very run.
 *
 * Four scenarios, each beside the same load without protection. Exits with 1 if something that must
 * be true is not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "demo.h"
#include "load.h"
#include "lookup.h"
#include "report.h"
#include "table.h"

#define DEFAULT_SEED 1991
#define DEFAULT_KEYS 1500
#define SAMPLE 0xFE18u

struct arguments {
    const char *data;
    uint64_t seed;
    uint64_t keys;
};

/* Where distributions put the Unicode character database; the first that has it, else the first. */
static const char *default_data(void)
{
    static const char *const places[] = {"/usr/share/unicode", "/usr/share/unicode/ucd",
                                         "/usr/share/unicode-character-database"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/UnicodeData.txt", places[i]);
        if (access(path, R_OK) == 0)
            return places[i];
    }
    return places[0];
}

static void usage(FILE *to)
{
    fprintf(to,
            "usage: demo [--seed N] [--keys N] [--data DIR]\n"
            "  --seed N    of the drawn characters and requests (%d)\n"
            "  --keys N    code points that the outage scenario asks for (%d)\n"
            "  --data DIR  where UnicodeData.txt is (%s)\n",
            DEFAULT_SEED, DEFAULT_KEYS, default_data());
}

static uint64_t number(const char *option, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-')
        die("%s wants a number, not \"%s\"", option, text);
    return value;
}

static void parse(int argc, char **argv, struct arguments *arguments)
{
    *arguments = (struct arguments){default_data(), DEFAULT_SEED, DEFAULT_KEYS};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            exit(0);
        }
        if (strcmp(argv[i], "--seed") == 0)
            arguments->seed = number(argv[i++], value);
        else if (strcmp(argv[i], "--keys") == 0)
            arguments->keys = number(argv[i++], value);
        else if (strcmp(argv[i], "--data") == 0 && value[0] != '\0')
            arguments->data = argv[++i];
        else {
            usage(stderr);
            exit(2);
        }
    }
}

static void introduce(const struct demo *demo)
{
    const struct report_style *style = report_colours();
    struct conn conn;
    struct record record;
    struct lookup_key key = lookup_key_of(SAMPLE);
    if (conn_open(&conn, demo->source) != SQLITE_OK ||
        source_query(&conn, key.text, key.len, &record) != SQLITE_ROW)
        die("SQLite (package libsqlite3-0) finds no %s", key.text);
    conn_close(&conn);
    printf("%slibaside %s%s · Unicode %s in SQLite %s, %s characters · seed %llu · %ld cores\n\n",
           style->bold, aside_version(), style->plain, demo->source->version, sqlite3_libversion(),
           cell_count(demo->char_count).text, (unsigned long long)demo->seed,
           sysconf(_SC_NPROCESSORS_ONLN));
    printf("   Each query joins seven tables; this is what it says of %s:\n\n", key.text);
    for (char *rest = record.text, *line; (line = strsep(&rest, "\n")) != NULL && line[0] != '\0';)
        printf("      %s%s%s\n", style->dim, line, style->plain);
    fflush(stdout);
}

static void conclude(const struct demo *demo)
{
    fflush(stdout);
    if (report_failures() > 0)
        fprintf(stderr, "\ndemo: %d of the checks FAILED, see above\n", report_failures());
    printf("\n\ndemo: requests=%llu hits=%llu source_queries=%llu unprotected_queries=%llu "
           "viral_queries=%llu viral_ratio=%.1f\n",
           (unsigned long long)demo->requests, (unsigned long long)demo->hits,
           (unsigned long long)demo->source_queries, (unsigned long long)demo->unprotected_queries,
           (unsigned long long)demo->viral_queries, demo->viral_ratio);
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    struct source source;
    struct demo demo = {.source = &source};
    parse(argc, argv, &arguments);
    /* Sleeps end on time, in this thread and in those that it makes. */
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    source_open(&source, arguments.data);
    source_chars(&source, &demo.chars, &demo.char_count);
    demo.seed = arguments.seed;
    demo.keys = arguments.keys;
    if (demo.keys == 0 || demo.keys > demo.char_count)
        die("--keys wants 1 to %zu", demo.char_count);
    introduce(&demo);
    outage_scenario(&demo);
    viral_scenario(&demo);
    leaver_scenario(&demo);
    reaper_scenario(&demo);
    conclude(&demo);
    free(demo.chars);
    source_close(&source);
    return report_failures() > 0;
}
