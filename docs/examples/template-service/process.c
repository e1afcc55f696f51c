/*
 * process.c -- fork, setsid, fcntl locks, sd_notify.
 */
#include "process.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

static int ready_fd = -1; /* the parent reads its other end */

/* ---- the background -------------------------------------------------------------------------- */

static _Noreturn void wait_for_child(int fd)
{
    char word;
    ssize_t got;
    do
        got = read(fd, &word, 1);
    while (got < 0 && errno == EINTR);
    close(fd);
    _exit(got == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
}

static bool leave_terminal(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    bool left = null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0 &&
                setsid() >= 0;
    if (null > STDERR_FILENO)
        close(null);
    return left;
}

/* stderr stays: that is where the log goes, unless it goes to syslog. */
bool process_daemonize(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        log_line(LOG_ERR, "cannot go to the background: %s", strerror(errno));
        return false;
    }
    pid_t child = fork();
    if (child > 0) {
        close(ends[1]);
        wait_for_child(ends[0]);
    }
    close(ends[0]);
    ready_fd = ends[1];
    if (child == 0 && leave_terminal())
        return true;
    log_line(LOG_ERR, "cannot go to the background: %s", strerror(errno));
    return false;
}

void process_is_ready(void)
{
    if (ready_fd >= 0) {
        if (write(ready_fd, "!", 1) < 0)
            log_line(LOG_WARNING, "whoever started this has gone");
        close(ready_fd);
        ready_fd = -1;
    }
#ifdef HAVE_SYSTEMD
    sd_notify(0, "READY=1");
#endif
}

void process_is_stopping(void)
{
#ifdef HAVE_SYSTEMD
    sd_notify(0, "STOPPING=1");
#endif
}

/* ---- the pid file ---------------------------------------------------------------------------- */

static int pid_fd = -1;

static bool lock_and_write(int fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_SETLK, &whole) == 0 && ftruncate(fd, 0) == 0 &&
           dprintf(fd, "%ld\n", (long)getpid()) > 0;
}

/* Whoever had it may have removed it after it was opened here: then the lock is of nothing. */
static bool is_still_there(int fd, const char *path)
{
    struct stat ours, theirs;
    return fstat(fd, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
           ours.st_ino == theirs.st_ino;
}

bool process_write_pid(const char *path)
{
    if (path == NULL)
        return true;
    pid_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (pid_fd >= 0 && lock_and_write(pid_fd)) {
        if (is_still_there(pid_fd, path))
            return true;
        close(pid_fd);
        return process_write_pid(path);
    }
    bool is_taken = errno == EAGAIN || errno == EACCES;
    log_line(LOG_ERR, "%s: %s", path, is_taken ? "another process has it" : strerror(errno));
    if (pid_fd >= 0)
        close(pid_fd);
    pid_fd = -1;
    return false;
}

void process_remove_pid(const char *path)
{
    if (pid_fd < 0)
        return;
    unlink(path);
    close(pid_fd);
    pid_fd = -1;
}

/* ---- limits ---------------------------------------------------------------------------------- */

void process_raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return;
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
}
