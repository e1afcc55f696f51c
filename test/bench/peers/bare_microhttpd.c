/*
 * bare_microhttpd.c -- what the template service would be if it did nothing: libmicrohttpd, started as
 * docs/examples/template-service/http.c starts it, and one response that is made once.
 *
 *   bare_microhttpd SIZE THREADS    prints the port, and answers with SIZE bytes until it is killed
 *
 * The least that any program on libmicrohttpd does: no look at the path, no header but Content-Type,
 * nothing allocated or counted for a request.
 */
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>

enum { BACKLOG = 4096, IDLE_SECONDS = 60, CONNECTIONS = 16384, MAX_SIZE = 1 << 20 };

static struct MHD_Response *response;

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **its_request)
{
    static int seen;
    (void)ctx, (void)path, (void)method, (void)version, (void)upload, (void)upload_size;
    if (*its_request == NULL) {
        *its_request = &seen; /* the headers are there: an answer is due at the next call */
        return MHD_YES;
    }
    return MHD_queue_response(connection, MHD_HTTP_OK, response);
}

static struct MHD_Daemon *start(unsigned threads)
{
    const struct sockaddr_in at = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
    return MHD_start_daemon(flags, 0, NULL, NULL, on_request, NULL, MHD_OPTION_SOCK_ADDR, &at,
                            MHD_OPTION_THREAD_POOL_SIZE, threads > 1 ? threads : 0,
                            MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
                            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                            MHD_OPTION_LISTEN_BACKLOG_SIZE, (unsigned)BACKLOG, MHD_OPTION_END);
}

int main(int argc, char *argv[])
{
    static char body[MAX_SIZE];
    long size = argc == 3 ? atol(argv[1]) : 0, threads = argc == 3 ? atol(argv[2]) : 0;
    if (size < 1 || size > MAX_SIZE || threads < 1) {
        fprintf(stderr, "usage: bare_microhttpd SIZE THREADS\n");
        return 64;
    }
    memset(body, 'x', (size_t)size);
    response = MHD_create_response_from_buffer((size_t)size, body, MHD_RESPMEM_PERSISTENT);
    if (response == NULL || MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                                    "application/json") != MHD_YES)
        return EXIT_FAILURE;
    struct MHD_Daemon *daemon = start((unsigned)threads);
    if (daemon == NULL)
        return EXIT_FAILURE;
    printf("%u\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    for (;;)
        pause();
}
