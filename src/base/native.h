/*
 * base/native -- how the library makes its threads: all signals blocked, named, with a stated
 * stack (P3).
 */
#ifndef ASIDE_BASE_NATIVE_H
#define ASIDE_BASE_NATIVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* stack_bytes 0: the system's default; less than the least is raised to it. */
bool native_thread(pthread_t *thread, size_t stack_bytes, void *(*run)(void *), void *arg);
/* Of the calling thread: naming another one would open a file. */
void native_name_thread(const char *name);

#endif
