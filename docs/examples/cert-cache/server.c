/*
 * server.c -- libmicrohttpd with a thread for each connection, so that a handler may wait.
 */
#include "server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "report.h"

/* ---- answering ------------------------------------------------------------------------------- */

/* Under the lock. */
static struct server_page *find(struct server *server, const char *path)
{
    for (size_t i = 0; i < server->page_count; i++)
        if (strcmp(server->pages[i].path, path) == 0)
            return &server->pages[i];
    return NULL;
}

/* Counts the request, waits while requests are held, and returns what is at the path then. */
static struct server_page arrive(struct server *server, const char *path)
{
    static const struct server_page nothing = {.status = MHD_HTTP_NOT_FOUND, .body = "not here\n"};
    pthread_mutex_lock(&server->lock);
    struct server_page *page = find(server, path);
    if (page != NULL)
        page->downloads++;
    else
        server->strays++;
    while (server->held)
        pthread_cond_wait(&server->released, &server->lock);
    struct server_page answer = page != NULL ? *page : nothing;
    pthread_mutex_unlock(&server->lock);
    return answer;
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **request)
{
    (void)method, (void)version, (void)upload, (void)upload_size, (void)request;
    struct server_page page = arrive(arg, path);
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(page.body), (void *)page.body, MHD_RESPMEM_PERSISTENT);
    if (response == NULL)
        return MHD_NO;
    if (page.location != NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_LOCATION, page.location);
    enum MHD_Result queued = MHD_queue_response(connection, page.status, response);
    MHD_destroy_response(response);
    return queued;
}

/* ---- life ------------------------------------------------------------------------------------ */

void server_open(struct server *server, const char *cert_pem, const char *key_pem)
{
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_port = 0};
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(server, 0, sizeof *server);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->released, NULL);
    server->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_TLS, 0, NULL,
        NULL, answer, server, MHD_OPTION_SOCK_ADDR, &loopback, MHD_OPTION_HTTPS_MEM_CERT, cert_pem,
        MHD_OPTION_HTTPS_MEM_KEY, key_pem, MHD_OPTION_END);
    if (server->daemon == NULL)
        die("libmicrohttpd (package libmicrohttpd12) cannot start a server with TLS on loopback");
    server->port = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
}

void server_close(struct server *server)
{
    MHD_stop_daemon(server->daemon);
    pthread_cond_destroy(&server->released);
    pthread_mutex_destroy(&server->lock);
}

/* ---- what it is told ------------------------------------------------------------------------- */

static void put(struct server *server, const struct server_page *new)
{
    pthread_mutex_lock(&server->lock);
    struct server_page *page = find(server, new->path);
    if (page == NULL && server->page_count == SERVER_PAGES)
        die("the server has no room for %s", new->path);
    if (page == NULL)
        page = &server->pages[server->page_count++];
    unsigned long downloads = page->downloads;
    *page = *new;
    page->downloads = downloads;
    pthread_mutex_unlock(&server->lock);
}

void server_put(struct server *server, const char *path, unsigned status, const char *body)
{
    put(server, &(struct server_page){path, status, body, NULL, 0});
}

void server_redirect(struct server *server, const char *path, const char *location)
{
    put(server, &(struct server_page){path, MHD_HTTP_FOUND, "elsewhere\n", location, 0});
}

static void set_held(struct server *server, bool held)
{
    pthread_mutex_lock(&server->lock);
    server->held = held;
    pthread_cond_broadcast(&server->released);
    pthread_mutex_unlock(&server->lock);
}

void server_hold(struct server *server)
{
    set_held(server, true);
}

void server_release(struct server *server)
{
    set_held(server, false);
}

/* ---- what it has counted --------------------------------------------------------------------- */

unsigned long server_take_downloads(struct server *server, const char *path)
{
    pthread_mutex_lock(&server->lock);
    struct server_page *page = find(server, path);
    unsigned long downloads = page != NULL ? page->downloads : 0;
    if (page != NULL)
        page->downloads = 0;
    pthread_mutex_unlock(&server->lock);
    return downloads;
}

unsigned long server_take_strays(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    unsigned long strays = server->strays;
    server->strays = 0;
    pthread_mutex_unlock(&server->lock);
    return strays;
}
