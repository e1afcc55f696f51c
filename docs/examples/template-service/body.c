/*
 * body.c -- one block: the response keeps the bytes, and the value keeps the response.
 */
#include "body.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* About what libmicrohttpd keeps of a response with two headers, in bytes: the cache's bound is to
 * count that, too. */
enum { RESPONSE_COST = 512 };

struct body {
    struct MHD_Response *hit; /* frees the block when it has no more users */
    char json[];
};

static void drop_response(void *json, void *response)
{
    (void)json;
    MHD_destroy_response(response);
}

static struct body *make(const char *json, size_t size)
{
    struct body *body = malloc(sizeof *body + size);
    if (body == NULL)
        return NULL;
    memcpy(body->json, json, size);
    body->hit =
        MHD_create_response_from_buffer_with_free_callback_cls(size, body->json, free, body);
    if (body->hit == NULL) {
        free(body);
        return NULL;
    }
    return body;
}

static bool add_headers(struct MHD_Response *response)
{
    return MHD_add_response_header(response, "Cache-Status", "libaside; hit") == MHD_YES &&
           MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json") ==
               MHD_YES;
}

aside_status body_new(const char *json, size_t size, aside_value **value)
{
    struct body *body = make(json, size);
    if (body == NULL)
        return ASIDE_E_NOMEM;
    struct MHD_Response *hit = body->hit;
    aside_status status = ASIDE_E_NOMEM;
    if (add_headers(hit))
        status = aside_value_wrap(body->json, size, drop_response, hit, value);
    if (status != ASIDE_OK) {
        MHD_destroy_response(hit);
        return status;
    }
    return aside_value_set_cost(*value, size + RESPONSE_COST);
}

struct MHD_Response *body_hit_response(const aside_value *value)
{
    const char *json = aside_value_data(value);
    const struct body *body = (const struct body *)(json - offsetof(struct body, json));
    return body->hit;
}
