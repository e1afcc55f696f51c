/*
 * base/siphash -- SipHash-1-3 (Aumasson and Bernstein 2012, with one compression and three
 * finalisation rounds as in Rust and Python).
 */
#ifndef ASIDE_BASE_SIPHASH_H
#define ASIDE_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t siphash(const uint64_t key[2], const void *bytes, size_t length);

#endif
