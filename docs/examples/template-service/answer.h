/*
 * answer.h -- answers to requests: each queues one response, whose status it notes.
 */
#ifndef ANSWER_H
#define ANSWER_H

#include "request.h"

/* The value's bytes are sent as they lie in the cache. Takes the reference. */
enum MHD_Result answer_value(struct request *request, aside_value *value, const char *cache_status);

/* The same for one that lay in the cache, by the response that was made with it. */
enum MHD_Result answer_hit(struct request *request, aside_value *value);

/* {"error":"..."}; for 503 the client is told when to try again. */
enum MHD_Result answer_error(struct request *request, unsigned status, const char *why);

/* Takes text, which is malloc'd; NULL: no memory. */
enum MHD_Result answer_text(struct request *request, const char *type, char *text, size_t size);

/* Bytes that stay as they are for ever. */
enum MHD_Result answer_constant(struct request *request, const char *type, const void *bytes,
                                size_t size);

/* allowed: of the Allow header. */
enum MHD_Result answer_wrong_method(struct request *request, const char *allowed);

/* {"id":7,"version":3}: it was written. */
enum MHD_Result answer_written(struct request *request);

#endif
