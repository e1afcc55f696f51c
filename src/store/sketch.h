/*
 * store/sketch -- how often keys have been asked for of late, known or not.
 *
 * TinyLFU's counters (Einziger, Friedman, Manes 2017): a count-min sketch (Cormode, Muthukrishnan
 * 2005) of 4-bit counters, four a key, all in one cache line (as in Caffeine). Once a period all are
 * halved, so that old times fade: two lines at each further addition, and what has not been halved
 * yet is read as though it had.
 *
 * Sixteen counters a word.
 */
#ifndef ASIDE_STORE_SKETCH_H
#define ASIDE_STORE_SKETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SKETCH_MOST 15 /* what a counter can say */
#define SKETCH_WORDS 8 /* fewest words; a cache line */

struct sketch {
    uint64_t *words; /* zeroed, whoever made the sketch owns them; NULL: counts nothing */
    size_t mask;     /* lines - 1 */
    size_t period;   /* additions between two halvings */
    size_t added;    /* since the last one began */
    size_t halved;   /* lines; all of them, if they are not being halved */
};

/* count: of the words, a power of two. */
void sketch_init(struct sketch *sketch, uint64_t *words, size_t count, size_t period);
/* Copies some lines, from *line on, to the zeroed words of one that is as large or larger: true, go
 * on. What is added to lines that have been copied is lost on the copy. */
bool sketch_copy(const struct sketch *sketch, uint64_t *words, size_t count, size_t *line);
void sketch_add(struct sketch *sketch, uint32_t print);
unsigned sketch_count(const struct sketch *sketch, uint32_t print);

#endif
