/*
 * answer.c -- responses of libmicrohttpd.
 */
#include "answer.h"

#include "body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char json_type[] = "application/json";
static const char retry_after_seconds[] = "1";

/* Takes the response; NULL: no memory. */
static enum MHD_Result queue(struct request *request, unsigned status, const char *type,
                             struct MHD_Response *response)
{
    if (response == NULL)
        return MHD_NO; /* the connection is closed */
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (atomic_load(&request->app->draining))
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    request->status = status;
    enum MHD_Result queued = MHD_queue_response(request->connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

static void release_value(void *value)
{
    aside_value_unref(value);
}

enum MHD_Result answer_hit(struct request *request, aside_value *value)
{
    if (atomic_load(&request->app->draining)) /* which wants a header of its own */
        return answer_value(request, value, "libaside; hit");
    request->status = MHD_HTTP_OK;
    enum MHD_Result queued =
        MHD_queue_response(request->connection, MHD_HTTP_OK, body_hit_response(value));
    aside_value_unref(value);
    return queued;
}

enum MHD_Result answer_value(struct request *request, aside_value *value, const char *cache_status)
{
    struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback_cls(
        aside_value_size(value), (void *)aside_value_data(value), release_value, value);
    if (response == NULL)
        aside_value_unref(value);
    else
        MHD_add_response_header(response, "Cache-Status", cache_status);
    return queue(request, MHD_HTTP_OK, json_type, response);
}

static enum MHD_Result send_copy(struct request *request, unsigned status, const char *text,
                                 const char *header, const char *value)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_MUST_COPY);
    if (response != NULL && header != NULL)
        MHD_add_response_header(response, header, value);
    return queue(request, status, json_type, response);
}

enum MHD_Result answer_error(struct request *request, unsigned status, const char *why)
{
    bool is_shed = status == MHD_HTTP_SERVICE_UNAVAILABLE;
    char *text = json_of_error(why);
    if (text == NULL)
        return MHD_NO;
    enum MHD_Result queued = send_copy(
        request, status, text, is_shed ? MHD_HTTP_HEADER_RETRY_AFTER : NULL, retry_after_seconds);
    free(text);
    return queued;
}

enum MHD_Result answer_wrong_method(struct request *request, const char *allowed)
{
    return send_copy(request, MHD_HTTP_METHOD_NOT_ALLOWED,
                     "{\"error\":\"this is not how it is asked\"}\n", MHD_HTTP_HEADER_ALLOW,
                     allowed);
}

enum MHD_Result answer_written(struct request *request)
{
    char text[96];
    const struct write *write = &request->write;
    bool created = write->outcome == DB_CREATED;
    snprintf(text, sizeof text, "{\"id\":%lld,\"version\":%lld}\n", (long long)write->template.id,
             (long long)write->template.version);
    return send_copy(request, created ? MHD_HTTP_CREATED : MHD_HTTP_OK, text, NULL, NULL);
}

enum MHD_Result answer_text(struct request *request, const char *type, char *text, size_t size)
{
    struct MHD_Response *response =
        text != NULL ? MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE) : NULL;
    if (response == NULL)
        free(text);
    return queue(request, MHD_HTTP_OK, type, response);
}

enum MHD_Result answer_constant(struct request *request, const char *type, const void *bytes,
                                size_t size)
{
    return queue(request, MHD_HTTP_OK, type,
                 MHD_create_response_from_buffer(size, (void *)bytes, MHD_RESPMEM_PERSISTENT));
}
