/*
 * parking.c -- a list of news between threads, and the sockets of clients that wait.
 */
#include "parking.h"

#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

bool parking_init(struct parking *parking, int epoll_fd)
{
    parking->epoll_fd = epoll_fd;
    parking->news = NULL;
    parking->wakeup_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&parking->lock, NULL);
    return parking->wakeup_fd >= 0;
}

void parking_destroy(struct parking *parking)
{
    if (parking->wakeup_fd >= 0)
        close(parking->wakeup_fd);
    pthread_mutex_destroy(&parking->lock);
}

void parked_init(struct parked *parked, struct MHD_Connection *connection, aside_cancel *token)
{
    *parked = (struct parked){.connection = connection, .token = token, .watched_fd = -1};
}

/* ---- news, from any thread ------------------------------------------------------------------- */

static void wake_loop(struct parking *parking)
{
    const uint64_t one = 1;
    /* It fails only where the counter is full, and the loop awake. */
    if (write(parking->wakeup_fd, &one, sizeof one) < 0)
        return;
}

static void tell(struct parking *parking, struct parked *parked, bool *what)
{
    pthread_mutex_lock(&parking->lock);
    *what = true;
    bool sleeps = parking->news == NULL;
    if (!parked->listed) {
        parked->listed = true;
        parked->next = parking->news;
        parking->news = parked;
    }
    pthread_mutex_unlock(&parking->lock);
    if (sleeps)
        wake_loop(parking);
}

void parking_park(struct parking *parking, struct parked *parked)
{
    MHD_suspend_connection(parked->connection);
    tell(parking, parked, &parked->arrived);
}

void parking_answer(struct parking *parking, struct parked *parked)
{
    tell(parking, parked, &parked->answered);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void watch(struct parking *parking, struct parked *parked)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(parked->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct epoll_event hangup = {.events = EPOLLRDHUP, .data.ptr = parked};
    if (info != NULL && epoll_ctl(parking->epoll_fd, EPOLL_CTL_ADD, info->connect_fd, &hangup) == 0)
        parked->watched_fd = info->connect_fd;
}

static void unwatch(struct parking *parking, struct parked *parked)
{
    if (parked->watched_fd >= 0)
        epoll_ctl(parking->epoll_fd, EPOLL_CTL_DEL, parked->watched_fd, NULL);
    parked->watched_fd = -1;
}

void parking_client_left(struct parking *parking, struct parked *parked)
{
    unwatch(parking, parked);
    aside_cancel_fire(parked->token);
}

/* What has been told of a request so far. */
struct news {
    struct parked *parked; /* NULL: there is none left */
    bool arrived, answered;
};

static struct news next_news(struct parking *parking)
{
    pthread_mutex_lock(&parking->lock);
    struct parked *parked = parking->news;
    struct news news = {parked, false, false};
    if (parked != NULL) {
        news = (struct news){parked, parked->arrived, parked->answered};
        parking->news = parked->next;
        parked->listed = false;
    }
    pthread_mutex_unlock(&parking->lock);
    return news;
}

static void begin_to_wait(struct parking *parking, struct parked *parked)
{
    watch(parking, parked);
    if (parked->on_arrival != NULL)
        parked->on_arrival(parked);
}

static void resume(struct parking *parking, struct parked *parked)
{
    unwatch(parking, parked);
    MHD_resume_connection(parked->connection); /* from here on it may be freed at any time */
}

void parking_settle(struct parking *parking)
{
    uint64_t count;
    if (read(parking->wakeup_fd, &count, sizeof count) < 0)
        return; /* nothing since the last time */
    for (struct news news = next_news(parking); news.parked != NULL; news = next_news(parking)) {
        if (news.arrived && news.answered)
            resume(parking, news.parked);
        else if (news.arrived)
            begin_to_wait(parking, news.parked);
    }
}
