/*
 * loop.c -- one epoll. In each batch clients that have left come before answers, and answers before
 * connections are resumed: what an event points to is still there.
 */
#include "loop.h"

#include "clock.h"
#include "http.h"
#include "log.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BATCH = 256, SLICE_MS = 50 };

static bool add(struct loop *loop, int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    return fd >= 0 && epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static int make_signal_fd(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int make_timer_fd(void)
{
    const struct itimerspec each_second = {.it_interval.tv_sec = 1, .it_value.tv_sec = 1};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd >= 0)
        timerfd_settime(fd, 0, &each_second, NULL);
    return fd;
}

bool loop_init(struct loop *loop, struct app *app)
{
    *loop = (struct loop){.app = app, .epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    loop->signal_fd = make_signal_fd();
    loop->timer_fd = make_timer_fd();
    bool made = parking_init(&app->parking, loop->epoll_fd) &&
                add(loop, loop->signal_fd, &loop->signal_fd) &&
                add(loop, loop->timer_fd, &loop->timer_fd) &&
                add(loop, app->parking.wakeup_fd, &app->parking) &&
                add(loop, service_fd(app->service), app->service);
    if (!made)
        log_line(LOG_ERR, "cannot make an event loop: %s", strerror(errno));
    return made;
}

void loop_destroy(struct loop *loop)
{
    parking_destroy(&loop->app->parking);
    close(loop->timer_fd);
    close(loop->signal_fd);
    close(loop->epoll_fd);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void on_second(struct app *app)
{
    pthread_mutex_lock(&app->history_lock);
    history_sample(&app->history, service_caches(app->service)[0],
                   repository_queries(app->repository));
    pthread_mutex_unlock(&app->history_lock);
}

static void on_signal(struct loop *loop)
{
    struct signalfd_siginfo info;
    while (read(loop->signal_fd, &info, sizeof info) == sizeof info) {
        log_line(LOG_INFO, "asked to end by signal %u", info.ssi_signo);
        loop->ended = true;
    }
}

static void handle(struct loop *loop, void *what)
{
    uint64_t seconds;
    if (what == &loop->signal_fd)
        on_signal(loop);
    else if (what == &loop->timer_fd && read(loop->timer_fd, &seconds, sizeof seconds) > 0)
        on_second(loop->app);
    else if (what != &loop->timer_fd && what != loop->app->service && what != &loop->app->parking)
        parking_client_left(&loop->app->parking, what);
}

static void turn(struct loop *loop, int timeout_ms)
{
    struct epoll_event events[BATCH];
    int count = epoll_wait(loop->epoll_fd, events, BATCH, timeout_ms);
    for (int i = 0; i < count; i++)
        handle(loop, events[i].data.ptr);
    service_dispatch(loop->app->service);
    parking_settle(&loop->app->parking);
}

void loop_run(struct loop *loop)
{
    while (!loop->ended)
        turn(loop, -1);
}

void loop_drain(struct loop *loop, const struct http *http, int64_t most_ms)
{
    int64_t end_ms = now_ms() + most_ms;
    while (http_requests(http) > 0 && now_ms() < end_ms)
        turn(loop, SLICE_MS);
}
