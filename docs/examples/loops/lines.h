/*
 * lines.h -- a non-blocking socket that is read and written by lines. Knows nothing of caches.
 */
#ifndef LOOPS_LINES_H
#define LOOPS_LINES_H

#include <stdbool.h>
#include <stddef.h>

enum { LINE = 512 }; /* the longest line, its end included */

struct lines {
    int fd;
    size_t in_len, out_len;
    char in[LINE], out[LINE];
};

/* A Unix socket that listens; -1 and errno. */
int lines_listen(const char *path);

/* Reads what there is, once all whole lines are taken. False: the peer sends no more, or a line that
 * is too long. */
bool lines_receive(struct lines *lines);

/* Takes a line, without its end, off what was read. False: there is no whole one. */
bool lines_take(struct lines *lines, char line[LINE], size_t *len);

/* Notes a line to send, its end added; for when the one before is sent. A longer one is cut. */
__attribute__((format(printf, 2, 3))) void lines_say(struct lines *lines, const char *form, ...);

/* Sends what goes. True: nothing is left. Of an error poll(2) and its kin tell as well. */
bool lines_flush(struct lines *lines);

#endif
