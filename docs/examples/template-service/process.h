/*
 * process.h -- what a daemon owes its system: the background, a pid file, a service manager.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdbool.h>

/* Goes to the background: returns in the new process, which has a session of its own, while the old
 * one waits for process_is_ready() and then exits with 0; or with 1 if the new one ends before
 * that. false: it has been logged why not. */
bool process_daemonize(void);

/* Tells whoever started the process, and the service manager, that it serves. */
void process_is_ready(void);
void process_is_stopping(void);

/* Writes the process id to a file, which is locked while the process lives: false, and logged, if
 * another one has it. path NULL: nothing to do. */
bool process_write_pid(const char *path);
void process_remove_pid(const char *path);

/* Lets the process have as many descriptors as it may. */
void process_raise_limits(void);

#endif
