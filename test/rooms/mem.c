/*
 * mem.c -- base/mem: the C library's allocator or the user's, and sizes that do not add up (B3, P5).
 */
#include "rooms.h"

#include "base/mem.h"

TEST(the_default_is_the_c_library_s)
{
    const aside_alloc none = {NULL, NULL, NULL, NULL};
    struct mem mem;
    CHECK(mem_init(&mem, &none));
    char *block = mem_zalloc(&mem, 100);
    CHECK(block != NULL);
    for (int i = 0; i < 100; i++)
        CHECK_INT(block[i], 0);
    block[99] = 'x';
    block = mem.hooks.realloc(block, 100000, mem.hooks.ctx);
    CHECK(block != NULL && block[99] == 'x');
    mem_free(&mem, block);
    mem_free(&mem, NULL);
}

TEST(an_allocator_is_whole_or_it_is_none)
{
    struct ledger ledger;
    const aside_alloc whole = ledger_init(&ledger);
    struct mem mem;
    CHECK(mem_init(&mem, &whole));
    for (unsigned has = 1; has < 7; has++) {
        const aside_alloc part = {has & 1 ? whole.malloc : NULL, has & 2 ? whole.realloc : NULL,
                                  has & 4 ? whole.free : NULL, &ledger};
        CHECK(!mem_init(&mem, &part));
    }
}

TEST(lines_begin_at_a_line_and_are_zero)
{
    void *raw = NULL;
    for (size_t size = 1; size < 300; size += 7) {
        char *lines = mem_zalloc_lines(&mem_default, size, &raw);
        CHECK(lines != NULL && (uintptr_t)lines % CACHE_LINE == 0);
        for (size_t i = 0; i < size; i++)
            CHECK_INT(lines[i], 0);
        memset(lines, 'x', size);
        mem_free(&mem_default, raw);
    }
}

TEST(sizes_that_do_not_add_up_and_memory_that_is_short_give_nothing)
{
    void *raw = NULL;
    CHECK(mem_zalloc_lines(&mem_default, SIZE_MAX, &raw) == NULL);
    CHECK(mem_zalloc_lines(&mem_default, SIZE_MAX - CACHE_LINE + 1, &raw) == NULL);
    process_fail_alloc(1, true);
    CHECK(mem_zalloc_lines(&mem_default, 1, &raw) == NULL);
    CHECK(mem_zalloc(&mem_default, 1) == NULL);
    CHECK(mem_alloc(&mem_default, 1) == NULL);
    process_fail_alloc(0, false);
}
