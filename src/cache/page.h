/*
 * cache/page -- text on its way to a writer of the user's, in pieces.
 */
#ifndef ASIDE_CACHE_PAGE_H
#define ASIDE_CACHE_PAGE_H

#include <aside/aside.h>
#include <stddef.h>
#include <stdint.h>

struct page {
    aside_write_fn *write;
    void *ctx;
    aside_status
        status;  /* what the writer returned; after another than ASIDE_OK it is not called */
    size_t used; /* of text */
    char text[2048];
};

void page_put_char(struct page *page, char c);
void page_put(struct page *page, const char *text);
void page_put_number(struct page *page, uint64_t number);
/* Writes what is left. */
void page_end(struct page *page);

#endif
