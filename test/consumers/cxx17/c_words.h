/*
 * c_words.h -- what C++17 lacks of C11 and the contract tests use, none of it part of the public headers: these come
 * first and as they are. Included before a test's first line, once c_words.sed has gone over it.
 */
#ifndef ASIDE_TEST_C_WORDS_H
#define ASIDE_TEST_C_WORDS_H

#if __has_include(<aside/group.h>)
#include <aside/group.h>
#endif
#include <aside/aside.h>
#include <cstddef>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define _Noreturn [[noreturn]]
#define _Static_assert static_assert
/* Not C++'s atomics: structures that have those cannot be copied. Without optimisation each access is one all the same. */
#define _Atomic

/* A pointer to void that turns into any other by itself. */
template <class Void> struct any_pointer {
    Void *pointer;
    template <class T> operator T *() const
    {
        return (T *)pointer;
    }
    explicit operator uintptr_t() const
    {
        return (uintptr_t)pointer;
    }
    bool operator==(std::nullptr_t) const
    {
        return pointer == nullptr;
    }
    bool operator!=(std::nullptr_t) const
    {
        return pointer != nullptr;
    }
    template <class T> bool operator==(T *other) const
    {
        return pointer == other;
    }
    template <class T> bool operator!=(T *other) const
    {
        return pointer != other;
    }
    template <class V> bool operator==(any_pointer<V> other) const
    {
        return pointer == other.pointer;
    }
    template <class V> bool operator!=(any_pointer<V> other) const
    {
        return pointer != other.pointer;
    }
};
template <class Void> any_pointer<Void> any_pointer_to(Void *pointer)
{
    return {pointer};
}

#define malloc(size) any_pointer_to(malloc(size))
#define calloc(number, size) any_pointer_to(calloc(number, size))
#define realloc(block, size) any_pointer_to(realloc(block, size))
#define aside_value_data(value) any_pointer_to(aside_value_data(value))
#define aside_fetch_key(fetch, size) any_pointer_to(aside_fetch_key(fetch, size))
#define aside_fetch_worker(fetch) any_pointer_to(aside_fetch_worker(fetch))

/* The harness is C. */
extern "C" {
#include "harness.h"
}

#endif
