/*
 * stream.c -- notifications of all kinds, from a file, checked by a few threads as they come.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "example.h"
#include "messages.h"
#include "report.h"

#define READERS 4

struct stream {
    struct certs *certs;
    char **lines;
    size_t count;
    atomic_size_t next;
    atomic_ulong verdicts[VERDICTS];
    atomic_ulong wrong;
};

static void check_many(void *ctx, size_t member)
{
    struct stream *stream = ctx;
    (void)member;
    for (size_t i; (i = stream->next++) < stream->count;) {
        enum verdict verdict = check_line(stream->certs, stream->lines[i]).verdict;
        stream->verdicts[verdict]++;
        if (verdict != messages_expected(i))
            stream->wrong++;
    }
}

/* Written and read back: what the program sees is the file. */
static void receive(struct stream *stream, const struct example *example)
{
    const char *path = example->messages_path;
    FILE *file = path != NULL ? fopen(path, "w+") : tmpfile();
    if (file == NULL)
        die("cannot make %s: %s", path != NULL ? path : "a temporary file", strerror(errno));
    messages_write(&example->world, file, example->messages);
    rewind(file);
    stream->lines = messages_read(file, &stream->count);
    fclose(file);
    report_check(stream->count == example->messages, "%zu lines for %zu messages", stream->count,
                 example->messages);
}

/* Three good certificates: a download each. A URL that is refused is asked of nobody. */
static unsigned long check_downloads(struct server *server)
{
    static const char *const good[] = {PAGE("orders"), PAGE("billing"), PAGE("stock")};
    unsigned long sum = 0;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        unsigned long downloads = server_take_downloads(server, good[i]);
        report_check(downloads <= 1, "%lu downloads of %s", downloads, good[i]);
        sum += downloads;
    }
    unsigned long strays = server_take_strays(server);
    report_check(strays == 0, "%lu requests for URLs that are not allowed", strays);
    return sum;
}

void stream_scenario(struct example *example)
{
    struct stream stream = {.certs = &example->certs};
    struct crew readers;
    char text[160] = "";
    aside_clear(example->certs.cache);
    receive(&stream, example);
    crew_open(&readers, READERS);
    crew_begin(&readers, check_many, &stream);
    crew_finish(&readers);
    crew_close(&readers);
    unsigned long downloads = check_downloads(&example->world.server);
    for (int i = 0; i < VERDICTS; i++) {
        size_t used = strlen(text);
        example->verdicts[i] = stream.verdicts[i];
        snprintf(text + used, sizeof text - used, "%s%lu %s", i > 0 ? ", " : "",
                 example->verdicts[i], verdict_text(i));
    }
    report_check(stream.wrong == 0, "%lu verdicts are wrong", (unsigned long)stream.wrong);
    report_line("stream", "%zu messages, %d threads: %s; downloads=%lu of 3 good certificates",
                stream.count, READERS, text, downloads);
    lines_free(stream.lines, stream.count);
}
