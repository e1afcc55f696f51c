/* cache/page -- see page.h. */
#include "cache/page.h"

#include <inttypes.h>
#include <stdio.h>

/* Never of an empty page: nobody but page_put_char() calls it before the end, and every text has an
 * end. */
void page_end(struct page *page)
{
    if (page->status == ASIDE_OK)
        page->status = page->write(page->ctx, page->text, page->used);
    page->used = 0;
}

void page_put_char(struct page *page, char c)
{
    if (page->used == sizeof page->text)
        page_end(page);
    page->text[page->used++] = c;
}

void page_put(struct page *page, const char *text)
{
    for (; *text; text++)
        page_put_char(page, *text);
}

void page_put_number(struct page *page, uint64_t number)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRIu64, number);
    page_put(page, digits);
}
