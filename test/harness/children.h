/*
 * children.h -- children that a test forks in the middle of its work.
 *
 * What a child has to say goes through a pipe to the test, which fails with it. A child that has made
 * all its checks ends with a status of its own, CHILD_DONE: one that vanishes before does not pass.
 * Of one that hangs, the stacks are printed.
 *
 * What ThreadSanitizer does not live through: it takes a thread of the child for one of the parent's, if
 * it has its address, and ends the process. For AddressSanitizer see asan_locks.c.
 */
#ifndef ASIDE_TEST_CHILDREN_H
#define ASIDE_TEST_CHILDREN_H

#include "harness.h"

#include <sys/types.h>

enum { CHILD_DONE = 42 };

struct child {
    pid_t pid;
    int said; /* what it writes to stderr can be read there */
};

extern bool in_child; /* this process is a child, or comes from one */

/* pid 0 in the child, whose only thread is no more called what it was. Any thread may call it. */
struct child child_fork(void);
_Noreturn void child_done(void);
/* Waits for the end of a child, who is to end with this status. */
void child_end(const struct child *child, int expected);

/* For a test that reads itself what a process says that comes from a child. */
int64_t child_patience_ns(void);               /* who takes longer hangs */
void child_guard(void);                        /* ends this process should nobody wait for it */
void child_skip_if_confused(const char *said); /* by ThreadSanitizer, which ended it then */

#endif
