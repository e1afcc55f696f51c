/*
 * hitratio.c -- how much of what is asked for again the cache still holds: request traces, replayed
 * through the public functions on a cache bounded in entries. Each request is aside_copy(), and on a
 * miss aside_set(); no ttl, no reaper. LRU beside it is exact.
 *
 *   hitratio FOLDER [SEED]    NAME.keys.zst (by zstd) or NAME.keys: a decimal key a line, in request
 *                             order; SEED of the cache's hash, 1 if there is none
 *
 * Capacities come from FOLDER/reference.tsv, a table with a heading: trace, capacity, and hit ratios of
 * other caches by name. Ours is compared with the last column whose name begins with "caffeine". A
 * trace that is not in the table is replayed at 1, 5 and 10 % of its distinct keys.
 */
#include "lib_bench.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define MOST_COLUMNS 24
#define LINE 1024
#define REFERENCE "caffeine"

static uint8_t hash_seed[16];

/* ---- the table of references ----------------------------------------------------------------- */

struct point {
    char trace[64];
    size_t capacity;
    double reference; /* below 0: none */
};

struct points {
    struct point *all;
    size_t count;
    char reference[64]; /* name of its column */
};

static struct point *point_add(struct points *points, const char *trace, size_t capacity)
{
    points->all = realloc(points->all, (points->count + 1) * sizeof *points->all);
    NEED(points->all);
    struct point *point = &points->all[points->count++];
    snprintf(point->trace, sizeof point->trace, "%s", trace);
    point->capacity = capacity;
    point->reference = -1;
    return point;
}

static int split(char *line, char *cells[MOST_COLUMNS])
{
    int count = 0;
    line[strcspn(line, "\r\n")] = 0;
    for (char *cell = strtok(line, "\t"); cell && count < MOST_COLUMNS; cell = strtok(NULL, "\t"))
        cells[count++] = cell;
    return count;
}

/* The newest of them stands last. */
static int find_reference(char *heading, char *name, size_t size)
{
    char *cells[MOST_COLUMNS];
    int count = split(heading, cells), found = -1;
    for (int i = 2; i < count; i++)
        if (strncmp(cells[i], REFERENCE, strlen(REFERENCE)) == 0)
            found = i;
    if (found >= 0)
        snprintf(name, size, "%s", cells[found]);
    return found;
}

static void read_references(struct points *points, const char *folder)
{
    char path[LINE], line[LINE], *cells[MOST_COLUMNS];
    snprintf(path, sizeof path, "%s/reference.tsv", folder);
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    int at = fgets(line, sizeof line, file)
                 ? find_reference(line, points->reference, sizeof points->reference)
                 : -1;
    while (fgets(line, sizeof line, file)) {
        int count = split(line, cells);
        if (count < 2)
            continue;
        struct point *point = point_add(points, cells[0], strtoul(cells[1], NULL, 10));
        if (at > 0 && at < count)
            point->reference = strtod(cells[at], NULL);
    }
    fclose(file);
}

/* ---- traces ---------------------------------------------------------------------------------- */

struct trace {
    char name[64];
    uint64_t *keys;
    size_t count;
};

struct seen {
    uint64_t key;
    UT_hash_handle hh;
};

static size_t count_distinct(const struct trace *trace)
{
    struct seen *all = NULL, *one, *next;
    for (size_t i = 0; i < trace->count; i++) {
        HASH_FIND(hh, all, &trace->keys[i], sizeof trace->keys[i], one);
        if (one)
            continue;
        one = bench_alloc(sizeof *one);
        one->key = trace->keys[i];
        HASH_ADD(hh, all, key, sizeof one->key, one);
    }
    size_t distinct = HASH_COUNT(all);
    HASH_ITER (hh, all, one, next) {
        HASH_DEL(all, one);
        free(one);
    }
    return distinct;
}

static FILE *open_trace(const char *path, bool packed)
{
    char command[2 * LINE];
    if (!packed)
        return fopen(path, "r");
    snprintf(command, sizeof command, "zstd -dcq '%s'", path);
    return popen(command, "r");
}

static void read_trace(struct trace *trace, const char *path, bool packed)
{
    char line[64];
    size_t room = 0;
    FILE *file = open_trace(path, packed);
    NEED(file);
    while (fgets(line, sizeof line, file)) {
        if (trace->count == room) {
            room = room ? 2 * room : 65536;
            trace->keys = realloc(trace->keys, room * sizeof *trace->keys);
            NEED(trace->keys);
        }
        trace->keys[trace->count++] = strtoull(line, NULL, 10);
    }
    NEED((packed ? pclose(file) : fclose(file)) == 0);
    NEED(trace->count > 0);
}

/* ---- replays --------------------------------------------------------------------------------- */

static double replay(const struct trace *trace, size_t capacity)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_cache *cache;
    size_t hits = 0;
    options.max_entries = capacity;
    options.max_bytes = 0;
    options.reaper_interval_ms = 0;
    options.hash_seed = hash_seed;
    NEED(aside_open(&cache, &options) == ASIDE_OK);
    for (size_t i = 0; i < trace->count; i++) {
        uint64_t key = trace->keys[i], value;
        if (aside_copy(cache, &key, sizeof key, &value, sizeof value, NULL) == ASIDE_OK) {
            NEED(value == key);
            hits++;
        } else {
            NEED(aside_set(cache, &key, sizeof key, &key, sizeof key, ASIDE_FOREVER) == ASIDE_OK);
        }
    }
    NEED(aside_count(cache) <= capacity);
    NEED(aside_close(cache) == ASIDE_OK);
    aside_unref(cache);
    return (double)hits / (double)trace->count;
}

/* uthash keeps the order of insertion: who is asked for is taken out and put in again. */
static double replay_lru(const struct trace *trace, size_t capacity)
{
    struct seen *all = NULL, *one, *next;
    size_t hits = 0;
    for (size_t i = 0; i < trace->count; i++) {
        HASH_FIND(hh, all, &trace->keys[i], sizeof trace->keys[i], one);
        if (one) {
            hits++;
            HASH_DEL(all, one);
        } else if (HASH_COUNT(all) == capacity) {
            one = all;
            HASH_DEL(all, one);
        } else {
            one = bench_alloc(sizeof *one);
        }
        one->key = trace->keys[i];
        HASH_ADD(hh, all, key, sizeof one->key, one);
    }
    HASH_ITER (hh, all, one, next) {
        HASH_DEL(all, one);
        free(one);
    }
    return (double)hits / (double)trace->count;
}

/* ---- figures --------------------------------------------------------------------------------- */

struct sums {
    double ours, lru, worst;
    size_t points, compared, below;
};

static void show_point(const struct trace *trace, const struct point *point, struct sums *sums)
{
    double ours = replay(trace, point->capacity), lru = replay_lru(trace, point->capacity);
    printf("%s\t%zu\t%.4f\t%.4f", trace->name, point->capacity, ours, lru);
    sums->ours += ours;
    sums->lru += lru;
    sums->points++;
    if (point->reference >= 0) {
        double lead = ours - point->reference;
        printf("\t%.4f\t%+.4f", point->reference, lead);
        sums->below += lead < 0;
        if (sums->compared++ == 0 || lead < sums->worst)
            sums->worst = lead;
    }
    putchar('\n');
    fflush(stdout);
}

static void show_trace(struct trace *trace, const struct points *points, struct sums *sums)
{
    static const unsigned percent[] = {1, 5, 10};
    size_t before = sums->points;
    for (size_t i = 0; i < points->count; i++)
        if (strcmp(points->all[i].trace, trace->name) == 0)
            show_point(trace, &points->all[i], sums);
    if (sums->points > before)
        return;
    size_t distinct = count_distinct(trace);
    for (size_t i = 0; i < sizeof percent / sizeof *percent; i++) {
        struct point point = {"", distinct * percent[i] / 100, -1};
        point.capacity = point.capacity ? point.capacity : 1;
        show_point(trace, &point, sums);
    }
}

static bool is_trace(const char *file, struct trace *trace, bool *packed)
{
    static const char *const endings[] = {".keys", ".keys.zst"};
    for (int i = 0; i < 2; i++) {
        size_t length = strlen(file), ending = strlen(endings[i]);
        if (length <= ending || length - ending >= sizeof trace->name ||
            strcmp(file + length - ending, endings[i]) != 0)
            continue;
        snprintf(trace->name, sizeof trace->name, "%.*s", (int)(length - ending), file);
        *packed = i == 1;
        return true;
    }
    return false;
}

static void show_folder(const char *folder, const struct points *points, struct sums *sums)
{
    struct dirent **files;
    int count = scandir(folder, &files, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        struct trace trace = {0};
        char path[LINE];
        bool packed;
        if (is_trace(files[i]->d_name, &trace, &packed)) {
            snprintf(path, sizeof path, "%s/%s", folder, files[i]->d_name);
            read_trace(&trace, path, packed);
            show_trace(&trace, points, sums);
            free(trace.keys);
        }
        free(files[i]);
    }
    if (count >= 0)
        free(files);
}

int main(int argc, char **argv)
{
    struct points points = {0};
    struct sums sums = {0};
    const char *folder = argc > 1 ? argv[1] : "";
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    memcpy(hash_seed, &seed, sizeof seed);
    if (*folder)
        read_references(&points, folder);
    printf("trace\tcapacity\tratio\tlru\t%s\tlead\n", *points.reference ? points.reference : "-");
    if (*folder)
        show_folder(folder, &points, &sums);
    free(points.all);
    if (!sums.points) {
        printf("no traces: TRACES=FOLDER says where NAME.keys.zst or NAME.keys are\n");
        return 77;
    }
    printf("lru: mean=%.4f\n", sums.lru / (double)sums.points);
    printf("hitratio: mean=%.4f points=%zu below_reference=%zu worst=%+.4f\n",
           sums.ours / (double)sums.points, sums.points, sums.below, sums.worst);
    return 0;
}
