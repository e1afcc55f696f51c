/*
 * template.h -- a template, and its form as JSON.
 */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

struct template
{
    int64_t id;
    int64_t version; /* counts up with every change */
    char *name;      /* the texts are owned, UTF-8, never NULL in a whole template */
    char *subject;
    char *body;
};

/* Frees the texts; safe on a struct of zeros, and twice. */
void template_clear(struct template *t);

/* {"id":7,"version":1,"name":"...","subject":"...","body":"...","query":N}: malloc'd, ended by 0,
 * *size without it. query is the number of the query that read it (repository.h), so that whoever
 * gets two answers can tell whether one query gave both. NULL: no memory, or no UTF-8. */
char *template_to_json(const struct template *t, uint64_t query, size_t *size);

/* Reads {"name":"...","subject":"...","body":"..."}, all three and nothing else, into *t, id and
 * version 0. NULL, or in plain words what is wrong (static storage, or cut to fit into why). */
const char *template_from_json(struct template *t, const char *json, size_t size, char why[160]);

/* {"error":"..."}, of what template_from_json() says or any other words: malloc'd, ended by 0.
 * NULL: no memory. */
char *json_of_error(const char *why);

#endif
