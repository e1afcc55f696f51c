/*
 * messages.h -- notifications as the world sends them: good ones, and each kind of bad one.
 */
#ifndef MESSAGES_H
#define MESSAGES_H

#include <stddef.h>
#include <stdio.h>

#include "check.h"
#include "world.h"

/* A line without its end, to be freed: signed by signer, naming the certificate of a page. */
char *message_new(const struct world *world, enum signer signer, const char *page, size_t number);

/* Lines, to be freed with lines_free(). */
char **messages_new(const struct world *world, enum signer signer, const char *page, size_t count);
void lines_free(char **lines, size_t count);

/* A file of count lines, of all kinds in turn. */
void messages_write(const struct world *world, FILE *file, size_t count);

/* What must be thought of line number so-and-so of that file. */
enum verdict messages_expected(size_t number);

/* Lines of a file, as many as there are. */
char **messages_read(FILE *file, size_t *count);

#endif
