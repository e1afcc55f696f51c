/*
 * service_parking.c -- the template service's parking, under a libmicrohttpd of which there is nothing but
 * what parking calls: HTTP threads park, others answer, in any order, and clients hang up.
 *
 * Each request is resumed once, by the loop, after it was suspended and answered; then it is freed, as it may
 * be in the service. Whoever comes by later is seen by AddressSanitizer, unordered access by ThreadSanitizer.
 */
#include "parking.h"

#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define check(condition)                                                                           \
    ((condition)                                                                                   \
         ? (void)0                                                                                 \
         : (fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition), _exit(1)))

enum { REQUESTS = 64, ROUNDS = 300, PATIENCE_MS = 20000 };

/* ---- libmicrohttpd ------------------------------------------------------------------------------- */

struct MHD_Connection {
    union MHD_ConnectionInfo info;
    int client_fd; /* the other end */
    atomic_bool suspended;
};

void MHD_suspend_connection(struct MHD_Connection *connection)
{
    check(!atomic_exchange(&connection->suspended, true));
}

const union MHD_ConnectionInfo *MHD_get_connection_info(struct MHD_Connection *connection,
                                                        enum MHD_ConnectionInfoType what, ...)
{
    check(what == MHD_CONNECTION_INFO_CONNECTION_FD);
    return &connection->info;
}

/* ---- requests ------------------------------------------------------------------------------------ */

struct request {
    struct parked parked;
    struct MHD_Connection connection;
    atomic_int arrivals;
};

static struct parking parking;
static int epoll_fd;
static struct request *requests[REQUESTS];
static atomic_int resumed;

static void on_arrival(struct parked *parked)
{
    struct request *request = (struct request *)parked;
    check(atomic_load(&request->connection.suspended));
    check(atomic_fetch_add(&request->arrivals, 1) == 0);
}

static struct request *request_new(aside_cancel *token)
{
    int ends[2];
    struct request *request = calloc(1, sizeof *request);
    check(request != NULL && socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    parked_init(&request->parked, &request->connection, token);
    request->parked.on_arrival = on_arrival;
    request->connection.info.connect_fd = ends[0];
    request->connection.client_fd = ends[1];
    return request;
}

/* The connection goes back to HTTP, which ends it at once. */
void MHD_resume_connection(struct MHD_Connection *connection)
{
    struct request *request =
        (struct request *)((char *)connection - offsetof(struct request, connection));
    check(atomic_load(&connection->suspended));
    close(connection->info.connect_fd);
    close(connection->client_fd);
    free(request);
    atomic_fetch_add(&resumed, 1);
}

/* ---- the loop ------------------------------------------------------------------------------------ */

static int turn(int timeout_ms)
{
    struct epoll_event events[16];
    int count = epoll_wait(epoll_fd, events, 16, timeout_ms);
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr != &parking)
            parking_client_left(&parking, events[i].data.ptr);
    parking_settle(&parking);
    return count;
}

static void run_until_resumed(int count)
{
    while (atomic_load(&resumed) < count)
        check(turn(PATIENCE_MS) > 0); /* else somebody waits for ever */
    check(turn(0) <= 1);
    check(atomic_load(&resumed) == count);
}

/* ---- in every order ------------------------------------------------------------------------------ */

static void dawdle(unsigned *seed)
{
    for (int i = rand_r(seed) % 4; i > 0; i--)
        sched_yield();
}

static void *park_all(void *its_seed)
{
    for (int i = 0; i < REQUESTS; i++) {
        parking_park(&parking, &requests[i]->parked);
        dawdle(its_seed);
    }
    return NULL;
}

static void *answer_all(void *its_seed)
{
    for (int i = 0; i < REQUESTS; i++) {
        parking_answer(&parking, &requests[i]->parked);
        dawdle(its_seed);
    }
    return NULL;
}

enum order { PARKED_FIRST, ANSWERED_FIRST, AT_ONCE, ORDERS };

static void check_order(enum order order, unsigned seed)
{
    void *(*const work[])(void *) = {order == ANSWERED_FIRST ? answer_all : park_all,
                                     order == ANSWERED_FIRST ? park_all : answer_all};
    unsigned seeds[] = {seed, seed + 1000};
    pthread_t threads[2];
    atomic_store(&resumed, 0);
    for (int i = 0; i < REQUESTS; i++)
        requests[i] = request_new(NULL);
    for (int i = 0; i < 2; i++) {
        check(pthread_create(&threads[i], NULL, work[i], &seeds[i]) == 0);
        if (order != AT_ONCE && i == 0) {
            check(pthread_join(threads[0], NULL) == 0);
            turn(0); /* the loop has seen the one without the other */
            check(atomic_load(&resumed) == 0);
        }
    }
    run_until_resumed(REQUESTS);
    for (int i = order == AT_ONCE ? 0 : 1; i < 2; i++)
        check(pthread_join(threads[i], NULL) == 0);
}

/* ---- clients that hang up ------------------------------------------------------------------------ */

/* His token fires, once he waits; who is answered first has gone unnoticed. */
static void check_hang_up(bool answered_first)
{
    aside_cancel *token = NULL;
    check(aside_cancel_new(&token) == ASIDE_OK);
    struct request *request = request_new(token);
    atomic_store(&resumed, 0);
    if (answered_first)
        parking_answer(&parking, &request->parked);
    parking_park(&parking, &request->parked);
    shutdown(request->connection.client_fd, SHUT_WR);
    if (!answered_first) {
        while (!aside_cancel_fired(token))
            check(turn(PATIENCE_MS) > 0);
        check(turn(0) == 0); /* it is not told again */
        parking_answer(&parking, &request->parked);
    }
    run_until_resumed(1);
    check(aside_cancel_fired(token) == !answered_first);
    aside_cancel_unref(token);
}

int main(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &parking};
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    check(parking_init(&parking, epoll_fd));
    check(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, parking.wakeup_fd, &event) == 0);
    for (unsigned round = 0; round < ROUNDS; round++)
        check_order((enum order)(round % ORDERS), round);
    check_hang_up(false);
    check_hang_up(true);
    parking_destroy(&parking);
    close(epoll_fd);
    return 0;
}
