/*
 * template.c -- JSON by jansson, which checks UTF-8 in both directions.
 */
#include "template.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WHY = 160, SHORT_NAME = 40, TEXTS = 3 };

static const char *const names[TEXTS] = {"name", "subject", "body"};

void template_clear(struct template *t)
{
    free(t->name);
    free(t->subject);
    free(t->body);
    t->name = t->subject = t->body = NULL;
}

char *template_to_json(const struct template *t, uint64_t query, size_t *size)
{
    json_t *object = json_pack("{sI sI ss ss ss sI}", "id", (json_int_t)t->id, "version",
                               (json_int_t)t->version, "name", t->name, "subject", t->subject,
                               "body", t->body, "query", (json_int_t)query);
    char *json = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (json != NULL)
        *size = strlen(json);
    return json;
}

/* jansson's own words, but for those that tell of its options. */
static const char *say_no_json(const json_error_t *error, char why[WHY])
{
    enum json_error_code code = json_error_code(error);
    const char *what = error->text;
    if (code == json_error_null_character || code == json_error_null_byte_in_key)
        what = "the character \\u0000 is not allowed";
    snprintf(why, WHY, "line %d, column %d: %.120s", error->line, error->column, what);
    return why;
}

static bool is_known(const char *name)
{
    for (size_t i = 0; i < TEXTS; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* A long name is not repeated: it would be cut, perhaps within a character. */
static const char *find_extra(json_t *object, char why[WHY])
{
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        if (is_known(name))
            continue;
        if (strlen(name) > SHORT_NAME)
            return "there is a field other than name, subject and body";
        snprintf(why, WHY, "there is a field other than name, subject and body: \"%s\"", name);
        return why;
    }
    return NULL;
}

static const char *find_missing(json_t *object, char why[WHY])
{
    for (size_t i = 0; i < TEXTS; i++) {
        const json_t *value = json_object_get(object, names[i]);
        if (json_is_string(value))
            continue;
        snprintf(why, WHY, "the field \"%s\" is %s", names[i],
                 value == NULL ? "missing" : "not a string");
        return why;
    }
    return NULL;
}

static const char *read_object(struct template *t, json_t *object, char why[WHY])
{
    if (!json_is_object(object))
        return "it is not an object";
    const char *wrong = find_missing(object, why);
    if (wrong == NULL)
        wrong = find_extra(object, why);
    if (wrong != NULL)
        return wrong;
    t->name = strdup(json_string_value(json_object_get(object, "name")));
    t->subject = strdup(json_string_value(json_object_get(object, "subject")));
    t->body = strdup(json_string_value(json_object_get(object, "body")));
    if (t->name != NULL && t->subject != NULL && t->body != NULL)
        return NULL;
    template_clear(t);
    return "there is no memory for it";
}

const char *template_from_json(struct template *t, const char *json, size_t size, char why[160])
{
    /* Any value: that an object was expected is said by us, in one way. */
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY;
    json_error_t error;
    *t = (struct template){0};
    if (size == 0)
        return "it is empty";
    json_t *object = json_loadb(json, size, flags, &error);
    if (object == NULL)
        return say_no_json(&error, why);
    const char *wrong = read_object(t, object, why);
    json_decref(object);
    return wrong;
}

/* What a client sent may be quoted in why, and may have been cut within a character. */
char *json_of_error(const char *why)
{
    json_t *object = json_pack("{ss}", "error", why);
    if (object == NULL)
        object = json_pack("{ss}", "error", "it is no JSON");
    char *json = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return json;
}
