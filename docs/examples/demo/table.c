/*
 * table.c -- tables of measured figures. Widths are counted in characters, not in bytes.
 */
#include "table.h"

#include <stdio.h>
#include <string.h>

#include "report.h"

#define WIDTH 78
#define WIDE 16   /* of a column, where there are two */
#define NARROW 13 /* where there are more */

/* ---- cells ----------------------------------------------------------------------------------- */

struct cell cell_count(uint64_t count)
{
    char digits[24];
    struct cell out = {""};
    size_t len = (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
    size_t to = 0;
    for (size_t i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            out.text[to++] = ',';
        out.text[to++] = digits[i];
    }
    return out;
}

struct cell cell_percent(uint64_t part, uint64_t whole)
{
    struct cell out;
    double percent = whole == 0 ? 0 : 100.0 * (double)part / (double)whole;
    snprintf(out.text, sizeof out.text, "%.1f %%", percent);
    return out;
}

/* Three digits that count, whatever the size. */
static struct cell scaled(double amount, const char *unit)
{
    struct cell out;
    int decimals = amount < 9.995 ? 2 : amount < 99.95 ? 1 : 0;
    snprintf(out.text, sizeof out.text, "%.*f %s", decimals, amount, unit);
    return out;
}

struct cell cell_time(int64_t ns)
{
    double us = (double)ns / 1e3;
    if (us < 999.5)
        return scaled(us, "µs");
    if (us < 999.5e3)
        return scaled(us / 1e3, "ms");
    return scaled(us / 1e6, "s ");
}

struct cell cell_bytes(uint64_t bytes)
{
    if (bytes == 0)
        return cell_text("0 MiB");
    return scaled((double)bytes / (1 << 20), "MiB");
}

struct cell cell_text(const char *text)
{
    struct cell out;
    snprintf(out.text, sizeof out.text, "%s", text);
    return out;
}

struct cell cell_none(void)
{
    return cell_text("–");
}

/* ---- tables ---------------------------------------------------------------------------------- */

static size_t characters(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

static void blanks(size_t count)
{
    printf("%*s", (int)count, "");
}

static void right(const char *text, size_t width)
{
    size_t len = characters(text);
    blanks(len < width ? width - len : 0);
    fputs(text, stdout);
}

static void left(const char *text, size_t width)
{
    size_t len = characters(text);
    fputs(text, stdout);
    blanks(len < width ? width - len : 0);
}

static void rule(void)
{
    const struct report_style *style = report_colours();
    printf("   %s", style->dim);
    for (size_t i = 0; i < WIDTH; i++)
        fputs("─", stdout);
    printf("%s\n", style->plain);
}

void table_open(struct table *table, const char *corner, const char *const *headings)
{
    const struct report_style *style = report_colours();
    for (table->columns = 0; headings[table->columns] != NULL;)
        table->columns++;
    table->column_width = table->columns > 2 ? NARROW : WIDE;
    table->label_width = WIDTH - table->columns * table->column_width;
    printf("\n   %s", style->bold);
    left(corner, table->label_width);
    for (size_t i = 0; i < table->columns; i++)
        right(headings[i], table->column_width);
    printf("%s\n", style->plain);
    rule();
}

void table_row(const struct table *table, const char *label, const struct cell *cells)
{
    printf("   ");
    left(label, table->label_width);
    for (size_t i = 0; i < table->columns; i++)
        right(cells[i].text, table->column_width);
    printf("\n");
}

void table_close(void)
{
    rule();
    printf("\n");
    fflush(stdout);
}
