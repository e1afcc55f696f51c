/*
 * flight/run -- running a fetch, and what the fetch says.
 *
 * A fetch decides once: by its callback's return, by aside_fetch_complete(), or by ending without
 * either. The first of them wins `decided` and publishes.
 *
 *   RUNNING -> decided                      the callback returned a status
 *           -> PENDING -> decided           it returned ASIDE_PENDING, and somebody completed later
 *           -> decided -> (callback returns) completed before that
 *   any of them without a decision, and the last handle gone: decided as ASIDE_E_ABANDONED
 *
 * This file's callback frames are unwound by pthread_exit, by cancellation and by C++ exceptions,
 * so it is compiled with -fexceptions.
 */
#ifndef ASIDE_FLIGHT_RUN_H
#define ASIDE_FLIGHT_RUN_H

#include "base/thread.h"
#include "flight/group.h"

/* Runs the fetch on this thread and gives the runner's handle back. cancel_state is what the
 * callback is to run with; less than 0: as it is. leader: this thread's caller holds a
 * reference, to be given back if the thread ends. True if the callback's return has decided the
 * flight: its answer is published. */
bool flight_run(struct flight *flight, struct thread_record *self, void *worker, int cancel_state,
                bool leader);
/* Its two halves: what the callback returned, and what follows from that. */
aside_status flight_call(struct flight *flight, struct thread_record *self, void *worker,
                         int cancel_state, bool leader);
bool flight_conclude(struct flight *flight, struct thread_record *self, aside_status status,
                     bool leader);
/* The answer that the status means; a value that it does not want is dropped, inside the flight. */
void flight_settle_inside(struct flight *flight, struct thread_record *self, aside_status status);
/* What runs between the two is inside the flight, for recursion and for closing. self may be
 * NULL. */
void run_push(struct thread_record *self, struct thread_fetch *frame, const struct flight *flight,
              enum thread_frame kind, void *worker);
void run_pop(struct thread_record *self, const struct thread_fetch *frame);
/* The fetch will not run: it ends with this status, and the runner's handle is given back. */
void flight_refuse(struct flight *flight, aside_status status, int code);
/* True if this thread is running a fetch of that key for that owner. */
bool flight_is_own(const struct thread_record *self, const void *owner, const void *key,
                   size_t key_len);

/* The jobs by which executors run flights. */
void flight_job_init(struct flight *flight);

#endif
