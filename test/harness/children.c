/*
 * children.c -- forks for tests, and what has become of the children. A child may fork as well.
 */
#include "children.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_CLO_CHANGE(option) (void)0
#endif

bool in_child;

/* Longer than the child itself waits for anything, as it can say for what. */
int64_t child_patience_ns(void)
{
    return 2 * test_patience_ns();
}

void child_guard(void)
{
    alarm((unsigned)(6 * child_patience_ns() / 1000000000));
}

static void begin_child(int said)
{
    in_child = true;
    VALGRIND_CLO_CHANGE(
        "--leak-check=no"); /* what the parent's threads hold is lost to their child */
    child_guard();
    /* No worker, or reaper, any more. A sanitizer's own prctl() takes a lock that another may hold. */
    syscall(SYS_prctl, PR_SET_NAME, "forked");
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    dup2(said, STDERR_FILENO);
    close(said);
}

/* Other programs run meanwhile: between them and this one a system may lack processes for a moment. */
static pid_t fork_patiently(void)
{
    pid_t pid;
    for (int tries = 0; (pid = fork()) < 0 && errno == EAGAIN && tries < 100; tries++)
        usleep(20000);
    if (pid < 0)
        test_fail(__FILE__, __LINE__, "fork", strerror(errno));
    return pid;
}

struct child child_fork(void)
{
    struct child child;
    int ends[2];

    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    fflush(NULL);
    child.pid = fork_patiently();
    child.said = ends[0];
    if (child.pid == 0) {
        close(ends[0]);
        begin_child(ends[1]);
        return child;
    }
    close(ends[1]);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return child;
}

/* A thread of the parent that had ended by the fork, and was not joined yet, ThreadSanitizer takes for a leak
 * of the child's when that ends. What else it has found it has said already. */
_Noreturn void child_done(void)
{
    fflush(NULL);
    if (UNDER_TSAN)
        syscall(SYS_exit_group, CHILD_DONE);
    harness_exit_now(CHILD_DONE);
}

/* ---- its end ------------------------------------------------------------------------------------- */

/* The text that has come so far; what is too much of it is thrown away. */
static void listen_to(const struct child *child, char *text, size_t size)
{
    char more[512];
    size_t length = strlen(text);
    ssize_t got;

    while ((got = read(child->said, more, sizeof more)) > 0) {
        size_t taken = (size_t)got < size - 1 - length ? (size_t)got : size - 1 - length;
        memcpy(text + length, more, taken);
        length += taken;
        text[length] = '\0';
    }
}

static _Noreturn void fail_with(const char *text, const char *what, const char *why)
{
    fprintf(stderr, "what the child said:\n%s\n", text);
    test_fail(__FILE__, __LINE__, what, why);
}

static int wait_for(const struct child *child, char *text, size_t size)
{
    int status = 0;
    int64_t give_up_ns = test_now_ns() + child_patience_ns();

    while (waitpid(child->pid, &status, WNOHANG) != child->pid) {
        listen_to(child, text, size);
        if (test_now_ns() > give_up_ns) {
            stacks_print_of(child->pid);
            listen_to(child, text, size); /* where there is no gdb it tells its stacks itself */
            kill(child->pid, SIGKILL);
            fail_with(text, "a child ends", "it hangs");
        }
        test_yield();
    }
    listen_to(child, text, size);
    close(child->said);
    return status;
}

void child_skip_if_confused(const char *said)
{
    if (UNDER_TSAN && strstr(said, "dup thread with used id"))
        test_skip("ThreadSanitizer takes a thread of the child for one of the parent's");
}

void child_end(const struct child *child, int expected)
{
    char text[8192] = "", why[64];

    CHECK(child->pid > 0);
    int status = wait_for(child, text, sizeof text);
    bool reported = strstr(text, "WARNING: ThreadSanitizer") != NULL;
    if (WIFEXITED(status) && WEXITSTATUS(status) == expected && !reported)
        return;
    child_skip_if_confused(text);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED)
        test_skip("a child of the child was skipped");
    if (WIFSIGNALED(status))
        snprintf(why, sizeof why, "signal %d", WTERMSIG(status));
    else if (reported && WEXITSTATUS(status) == expected)
        snprintf(why, sizeof why, "ThreadSanitizer has something to report");
    else
        snprintf(why, sizeof why, "status %d, expected %d", WEXITSTATUS(status), expected);
    fail_with(text, "a child ends well", why);
}
