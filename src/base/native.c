/* base/native -- see native.h. */
#include "base/native.h"

#include <limits.h>
#include <signal.h>
#include <unistd.h>

static void set_stack(pthread_attr_t *attributes, size_t stack_bytes)
{
    size_t least = (size_t)sysconf(_SC_THREAD_STACK_MIN);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (stack_bytes < least)
        stack_bytes = least;
    pthread_attr_setstacksize(attributes, (stack_bytes + page - 1) / page * page);
}

bool native_thread(pthread_t *thread, size_t stack_bytes, void *(*run)(void *), void *arg)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    if (stack_bytes)
        set_stack(&attributes, stack_bytes);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, &attributes, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error == 0;
}

void native_name_thread(const char *name)
{
#ifdef __linux__
    pthread_setname_np(pthread_self(), name);
#else
    (void)name;
#endif
}
