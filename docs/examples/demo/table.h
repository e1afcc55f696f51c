/*
 * table.h -- tables of measured figures: a label and some right-aligned columns.
 */
#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>
#include <stdint.h>

struct cell {
    char text[32];
};

struct cell cell_count(uint64_t count);                  /* 7,500 */
struct cell cell_percent(uint64_t part, uint64_t whole); /* 84.9 % */
struct cell cell_time(int64_t ns);      /* three digits: 4.21 µs, 12.5 ms, 1.50 s */
struct cell cell_bytes(uint64_t bytes); /* 5.31 MiB */
struct cell cell_text(const char *text);
struct cell cell_none(void); /* a dash: the figure has no meaning here */

struct table {
    size_t columns;
    size_t label_width;
    size_t column_width;
};

/* The heading: one text for each column, NULL after the last. Prints at once. */
void table_open(struct table *table, const char *corner, const char *const *headings);

/* One row: as many cells as there are columns. */
void table_row(const struct table *table, const char *label, const struct cell *cells);
#define CELLS(...) ((const struct cell[]){__VA_ARGS__})

void table_close(void);

#endif
