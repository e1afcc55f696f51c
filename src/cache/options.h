/*
 * cache/options -- public structs that grow: reading one of any size, and checking what is in it.
 */
#ifndef ASIDE_CACHE_OPTIONS_H
#define ASIDE_CACHE_OPTIONS_H

#include <aside/aside.h>
#include <stdbool.h>
#include <stddef.h>

/* Copies a struct that begins with its own size over the defaults in *to. False if the size is 0,
 * or it has something that this library does not know. */
bool options_copy(void *to, size_t to_size, const void *from);
/* NULL: the defaults. False if a member is invalid. */
bool options_take(aside_options *to, const aside_options *from);
/* The call itself, or a copy in *own if its struct is not of this library's size; NULL if it is
 * invalid. */
const aside_call *options_call(const aside_call *call, aside_call *own);
/* Where a result is to be written, with nothing in it yet: the caller's, or *own if his is an older,
 * shorter struct, or a longer one; NULL if his is invalid. */
aside_result *options_result(aside_result *given, aside_result *own);
void options_give_result(aside_result *to, const aside_result *from);
void options_give_stats(aside_stats *to, const aside_stats *from);

#endif
