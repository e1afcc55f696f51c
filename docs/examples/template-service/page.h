/*
 * page.h -- the live page: page.html, which the linker has put into the program.
 */
#ifndef PAGE_H
#define PAGE_H

#include <stddef.h>

/* Its bytes, of static storage, not ended by 0. */
const char *page_html(size_t *size);

#endif
