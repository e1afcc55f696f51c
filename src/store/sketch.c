/* store/sketch -- see sketch.h. */
#include "store/sketch.h"

#define ROWS 4
#define STEP 2  /* lines that an addition halves */
#define COPY 64 /* lines that are copied at a time */

/* Where one of a key's counters is. */
struct place {
    uint64_t *word;
    unsigned shift;
};

/* An odd multiplier spreads the print over the higher bits (Knuth's multiplicative hashing). */
static uint64_t spread(uint32_t print)
{
    return (print + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);
}

static size_t line_of(const struct sketch *sketch, uint64_t bits)
{
    return (size_t)(bits >> 32) & sketch->mask;
}

/* Each row has two words of the line. */
static struct place place_of(const struct sketch *sketch, size_t line, uint64_t bits, unsigned row)
{
    unsigned choice = (unsigned)(bits >> (8 + 5 * row)) & 31;
    return (struct place){sketch->words + line * SKETCH_WORDS + 2 * (size_t)row + (choice & 1),
                          (choice >> 1) * 4};
}

static unsigned read_place(const struct place *place)
{
    return (unsigned)(*place->word >> place->shift) & SKETCH_MOST;
}

static void raise(const struct place *place, unsigned by)
{
    unsigned count = read_place(place);
    by = count + by > SKETCH_MOST ? SKETCH_MOST - count : by;
    *place->word += (uint64_t)by << place->shift;
}

static uint64_t halves(uint64_t word)
{
    return word >> 1 & UINT64_C(0x7777777777777777);
}

static void halve_some(struct sketch *sketch)
{
    for (unsigned i = 0; i < STEP && sketch->halved <= sketch->mask; i++, sketch->halved++) {
        uint64_t *line = sketch->words + sketch->halved * SKETCH_WORDS;
        for (unsigned w = 0; w < SKETCH_WORDS; w++)
            line[w] = halves(line[w]);
    }
}

void sketch_init(struct sketch *sketch, uint64_t *words, size_t count, size_t period)
{
    sketch->words = words;
    sketch->mask = words ? count / SKETCH_WORDS - 1 : 0;
    sketch->period = period;
    sketch->added = 0;
    sketch->halved = sketch->mask + 1;
}

/* The copy begins with all lines halved. */
static void copy_line(const struct sketch *sketch, uint64_t *to, size_t line)
{
    const uint64_t *from = sketch->words + line * SKETCH_WORDS;
    for (unsigned w = 0; w < SKETCH_WORDS; w++)
        to[w] = line < sketch->halved ? from[w] : halves(from[w]);
}

bool sketch_copy(const struct sketch *sketch, uint64_t *words, size_t count, size_t *line)
{
    size_t end = count / SKETCH_WORDS;
    for (unsigned i = 0; i < COPY && sketch->words && *line < end; i++, ++*line)
        copy_line(sketch, words + *line * SKETCH_WORDS, *line & sketch->mask);
    return sketch->words && *line < end;
}

void sketch_add(struct sketch *sketch, uint32_t print)
{
    if (!sketch->words)
        return;
    uint64_t bits = spread(print);
    size_t line = line_of(sketch, bits);
    unsigned by = line < sketch->halved ? 1 : 2;
    for (unsigned row = 0; row < ROWS; row++) {
        struct place place = place_of(sketch, line, bits, row);
        raise(&place, by);
    }
    halve_some(sketch);
    if (++sketch->added >= sketch->period && sketch->halved > sketch->mask) {
        sketch->added = 0;
        sketch->halved = 0;
    }
}

unsigned sketch_count(const struct sketch *sketch, uint32_t print)
{
    unsigned least = SKETCH_MOST;
    if (!sketch->words)
        return 0;
    uint64_t bits = spread(print);
    size_t line = line_of(sketch, bits);
    for (unsigned row = 0; row < ROWS; row++) {
        struct place place = place_of(sketch, line, bits, row);
        unsigned count = read_place(&place);
        least = count < least ? count : least;
    }
    return line < sketch->halved ? least : least / 2;
}
