/*
 * messages.c -- lists of kinds, each with the verdict that it must be given.
 */
#include "messages.h"

#include <stdlib.h>
#include <string.h>

#include "notice.h"
#include "report.h"

enum trick { NO_TRICK, OTHER_TEXT, CUT_SHORT };

/* The URL is before, the server's "host:port", after; or before alone. */
struct kind {
    enum signer signer;
    const char *before, *after;
    enum trick trick;
    enum verdict expected;
};

static const struct kind good[] = {
    {ORDERS, "https://", PAGE("orders"), NO_TRICK, VERIFIED},
    {BILLING, "https://", PAGE("billing"), NO_TRICK, VERIFIED},
    {STOCK, "https://", PAGE("stock"), NO_TRICK, VERIFIED},
    /* The first again, spelt otherwise: it must be the same key. */
    {ORDERS, "HTTPS://", "/certificates/./x/../orders.pem", NO_TRICK, VERIFIED},
};

static const struct kind bad[] = {
    {ORDERS, "https://", PAGE("orders"), OTHER_TEXT, FORGED},
    {BILLING, "https://", PAGE("orders"), NO_TRICK, FORGED},

    {STRANGER, "https://", PAGE("stranger"), NO_TRICK, UNTRUSTED},
    {NEIGHBOUR, "https://", PAGE("neighbour"), NO_TRICK, UNTRUSTED},
    {OUTDATED, "https://", PAGE("outdated"), NO_TRICK, UNTRUSTED},

    {ORDERS, "http://", PAGE("orders"), NO_TRICK, REFUSED},
    {ORDERS, "https://elsewhere.", PAGE("orders"), NO_TRICK, REFUSED},
    {ORDERS, "https://127.0.0.1:1" PAGE("orders"), NULL, NO_TRICK, REFUSED},
    {ORDERS, "https://", "@attacker.example" PAGE("orders"), NO_TRICK, REFUSED},
    {ORDERS, "https://attacker@", PAGE("orders"), NO_TRICK, REFUSED},
    {ORDERS, "https://", "/private/orders.pem", NO_TRICK, REFUSED},
    {ORDERS, "https://", "/certificates/../private/orders.pem", NO_TRICK, REFUSED},
    {ORDERS, "https://", "/certificates/%2e%2e%2fprivate%2forders.pem", NO_TRICK, REFUSED},
    {ORDERS, "https://", PAGE("orders") "?fresh=1", NO_TRICK, REFUSED},
    {ORDERS, "https://", PAGE("orders") "#fresh", NO_TRICK, REFUSED},

    {ORDERS, "https://", PAGE("broken"), NO_TRICK, UNAVAILABLE},
    {ORDERS, "https://", PAGE("moved"), NO_TRICK, UNAVAILABLE},
    {ORDERS, "https://", PAGE("huge"), NO_TRICK, UNAVAILABLE},

    {ORDERS, "https://", PAGE("orders"), CUT_SHORT, MALFORMED},
};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Every other one is good. */
static const struct kind *kind_of(size_t number)
{
    size_t pair = number / 2;
    return number % 2 == 0 ? &good[pair % LENGTH(good)] : &bad[pair % LENGTH(bad)];
}

/* ---- one line -------------------------------------------------------------------------------- */

/* The text says "12 pieces", and becomes "92 pieces". */
static void tamper(char *line)
{
    *(strstr(line, " pieces") - 2) = '9';
}

static char *line_of(const struct world *world, const struct kind *kind, size_t number)
{
    char url[ALLOW_MAX_URL], id[32], text[64];
    snprintf(url, sizeof url, "%s%s%s", kind->before,
             kind->after != NULL ? world->authority_part : "",
             kind->after != NULL ? kind->after : "");
    snprintf(id, sizeof id, "%08zu", number);
    snprintf(text, sizeof text, "item %zu: 12 pieces\nsent \"today\"", number);
    struct notice notice = {.id = id,
                            .message = text,
                            .timestamp = "2026-01-01T00:00:00.000Z",
                            .topic = "stock movements",
                            .type = "Notification",
                            .cert_url = url};
    char *line = notice_write(&notice, world->signers[kind->signer].key);
    if (line == NULL)
        die("cannot write a message");
    if (kind->trick == OTHER_TEXT)
        tamper(line);
    if (kind->trick == CUT_SHORT)
        line[strlen(line) / 2] = '\0';
    return line;
}

char *message_new(const struct world *world, enum signer signer, const char *page, size_t number)
{
    struct kind kind = {signer, "https://", page, NO_TRICK, VERIFIED};
    return line_of(world, &kind, number);
}

/* ---- many ------------------------------------------------------------------------------------ */

char **messages_new(const struct world *world, enum signer signer, const char *page, size_t count)
{
    char **lines = calloc(count, sizeof *lines);
    if (lines == NULL)
        die("out of memory");
    for (size_t i = 0; i < count; i++)
        lines[i] = message_new(world, signer, page, i);
    return lines;
}

void lines_free(char **lines, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(lines[i]);
    free(lines);
}

enum verdict messages_expected(size_t number)
{
    return kind_of(number)->expected;
}

void messages_write(const struct world *world, FILE *file, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *line = line_of(world, kind_of(i), i);
        fprintf(file, "%s\n", line);
        free(line);
    }
    if (fflush(file) != 0 || ferror(file))
        die("cannot write the messages");
}

char **messages_read(FILE *file, size_t *count)
{
    char **lines = NULL, *line = NULL;
    size_t room = 0;
    for (*count = 0; getline(&line, &room, file) > 0; ++*count) {
        lines = realloc(lines, (*count + 1) * sizeof *lines);
        if (lines == NULL)
            die("out of memory");
        line[strcspn(line, "\n")] = '\0';
        lines[*count] = line;
        line = NULL;
        room = 0;
    }
    free(line);
    return lines;
}
