/*
 * app.h -- the daemon's parts, for whoever answers requests.
 */
#ifndef APP_H
#define APP_H

#include "history.h"
#include "options.h"
#include "parking.h"
#include "repository.h"
#include "service.h"
#include "stampede.h"
#include "writer.h"

#include <stdatomic.h>

struct app {
    struct options options;
    struct repository *repository;
    struct service *service;
    struct writer *writer;
    struct stampede *stampede; /* the loop's own */
    struct parking parking;
    pthread_mutex_t history_lock;
    struct history history; /* guarded by history_lock */
    atomic_bool draining;   /* the daemon is ending: connections are not kept */
};

#endif
