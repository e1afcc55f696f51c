/*
 * body.h -- what is cached of a template: its JSON, and the response that sends it on a hit.
 *
 * The response is made once a query, not once a request: to make one, with its two headers, costs
 * more than all else that a hit does in this program.
 */
#ifndef BODY_H
#define BODY_H

#include <aside/aside.h>
#include <microhttpd.h>

/* A value whose bytes are a copy of the JSON. */
aside_status body_new(const char *json, size_t size, aside_value **value);

/* Of a value that body_new() made; borrowed. Many connections may have it queued at once, and it may
 * be sent still when the value is gone. */
struct MHD_Response *body_hit_response(const aside_value *value);

#endif
