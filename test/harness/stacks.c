/*
 * stacks.c -- what every thread of a test was doing when it crashed or ran out of time.
 *
 * The parent asks gdb where there is one: it sees threads that block every signal too. Else it sends
 * each thread a signal whose handler prints that thread's stack. State and wait channel of each thread
 * are printed in any case.
 */
#include "internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_FRAMES = 64, MOST_THREADS = 2048, GDB_S = 40, NAP_NS = 30000000 };

static int dump_signal(void)
{
    return SIGRTMAX - 2;
}

static void print_own_stack(void)
{
    void *frames[MOST_FRAMES];
    int count = backtrace(frames, MOST_FRAMES);

    backtrace_symbols_fd(frames, count, STDERR_FILENO);
}

static void say(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

static void on_dump(int number)
{
    int saved = errno;

    (void)number;
    print_own_stack();
    say("\n");
    errno = saved;
}

#if !UNDER_TSAN && !UNDER_ASAN
static void on_crash(int number)
{
    say("crashed; stack of the thread:\n");
    print_own_stack();
    raise(number); /* SA_RESETHAND: now it kills */
}
#endif

void stacks_install(void)
{
    struct sigaction action;
    void *frame;

    backtrace(&frame, 1); /* loads libgcc_s now, not inside a handler */
    memset(&action, 0, sizeof action);
    action.sa_handler = on_dump;
    action.sa_flags = SA_RESTART;
    sigaction(dump_signal(), &action, NULL);
#if !UNDER_TSAN && !UNDER_ASAN
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    action.sa_handler = on_crash;
    action.sa_flags = (int)(SA_RESETHAND | SA_NODEFER);
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        sigaction(fatal[i], &action, NULL);
#endif
}

/* ---- in the parent ------------------------------------------------------------------------------- */

static int tasks_of(pid_t pid, pid_t *tids)
{
    char path[64];
    const struct dirent *entry;
    int count = 0;

    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return 0;
    while ((entry = readdir(dir)) && count < MOST_THREADS)
        if (isdigit((unsigned char)entry->d_name[0]))
            tids[count++] = (pid_t)strtol(entry->d_name, NULL, 10);
    closedir(dir);
    return count;
}

static void read_task(pid_t pid, pid_t tid, const char *what, char *text, size_t size)
{
    char path[96];

    snprintf(path, sizeof path, "/proc/%d/task/%d/%s", (int)pid, (int)tid, what);
    text[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

static void print_task(pid_t pid, pid_t tid)
{
    char name[32], stat[512], channel[64];

    read_task(pid, tid, "comm", name, sizeof name);
    read_task(pid, tid, "stat", stat, sizeof stat);
    read_task(pid, tid, "wchan", channel, sizeof channel);
    const char *state = strrchr(stat, ')');
    fprintf(stderr, "thread %d \"%s\" state %c in %s\n", (int)tid, name,
            state && state[1] ? state[2] : '?', channel);
}

/* A process that takes too long is killed. */
static bool ends_well(pid_t pid)
{
    const struct timespec nap = {0, NAP_NS};
    int64_t give_up_ns = test_now_ns() + GDB_S * INT64_C(1000000000);
    int status = 0;

    while (waitpid(pid, &status, WNOHANG) != pid) {
        if (test_now_ns() > give_up_ns)
            kill(pid, SIGKILL);
        nanosleep(&nap, NULL);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* posix_spawn() runs no handlers of forks, which may be what hangs. */
static bool spawn(const char *const *words, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;

    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    int error = posix_spawnp(pid, words[0], &actions, &attributes, (char *const *)words, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return error == 0;
}

static bool gdb_prints(pid_t pid)
{
    char number[16];
    const char *const words[] = {"gdb",  "-nx",
                                 "-q",   "-batch",
                                 "-iex", "set debuginfod enabled off",
                                 "-p",   number,
                                 "-ex",  "thread apply all backtrace 40",
                                 NULL};
    pid_t gdb;

    snprintf(number, sizeof number, "%d", (int)pid);
    return spawn(words, &gdb) && ends_well(gdb);
}

void stacks_print_of(pid_t pid)
{
    static pid_t tids[MOST_THREADS];
    const struct timespec nap = {0, NAP_NS};
    int count = tasks_of(pid, tids);

    for (int i = 0; i < count; i++)
        print_task(pid, tids[i]);
    if (gdb_prints(pid))
        return;
    for (int i = 0; i < count; i++) {
        fprintf(stderr, "stack of thread %d (none below: it blocks signals):\n", (int)tids[i]);
        syscall(SYS_tgkill, pid, tids[i], dump_signal());
        nanosleep(&nap, NULL); /* one after the other, so that the lines do not mix */
    }
}
