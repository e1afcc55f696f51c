/*
 * locks.h -- counts the locks that are taken below a call, by standing between the program and the
 * C library. For the proof that a hit takes none; a program of your own has no need of it.
 *
 * Counted are pthread_mutex_lock and _trylock, pthread_rwlock_rdlock and _wrlock, and what goes
 * through syscall(), which is how libaside waits. Each thread counts for itself.
 */
#ifndef LOCKS_H
#define LOCKS_H

void locks_watch(void);            /* counts from here on, from 0 */
void locks_pause(void);            /* user code begins: its locks are its own affair */
void locks_resume(void);           /* it ends */
unsigned long locks_counted(void); /* since locks_watch(), and stops */

#endif
