/*
 * page.c -- the two symbols between which `ld -b binary` puts a file.
 */
#include "page.h"

extern const char _binary_page_html_start[], _binary_page_html_end[];

const char *page_html(size_t *size)
{
    *size = (size_t)(_binary_page_html_end - _binary_page_html_start);
    return _binary_page_html_start;
}
