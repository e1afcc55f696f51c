/*
 * allow.h -- which URLs a message may name.
 *
 * A message is not yet trusted when its URL is read: whoever can make us fetch a URL of his choice
 * can make us fetch his own certificate, or knock at doors inside our network.
 */
#ifndef ALLOW_H
#define ALLOW_H

#include <stdbool.h>
#include <stddef.h>

#define ALLOW_MAX_URL 256

struct allow {
    const char *scheme;
    const char *host; /* spelt exactly so */
    const char *port;
    const char *path; /* as fnmatch(3) has it; '*' matches no '/' */
};

/* Only allow_url() makes one: what takes this instead of a string cannot be given an unseen URL. */
struct allowed_url {
    char text[ALLOW_MAX_URL];
    size_t len;
};

/* Two spellings of a URL that are both allowed become the same text, so the same key. */
bool allow_url(const struct allow *allow, const char *url, struct allowed_url *allowed);

#endif
