#!/bin/sh
# Prometheus' own tool takes what aside_stats_write() writes, and finds nothing to improve.
. test/build/common.inc
needs promtool

cat >"$scratch/print.c" <<'END'
#include <aside/aside.h>
#include <stdio.h>

static aside_status append(void *file, const char *text, size_t length)
{
    return fwrite(text, 1, length, file) == length ? ASIDE_OK : ASIDE_E_SYSTEM;
}

static aside_status load(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "value", 5);
}

int main(void)
{
    static const char *const names[] = {"users", "a \"strange\"\n\\name"};
    aside_cache *caches[2];
    aside_call call = {ASIDE_CALL, .fetch = load};
    aside_result result = ASIDE_RESULT_INIT;
    for (int i = 0; i < 2; i++) {
        aside_options options = ASIDE_OPTIONS_INIT;
        options.name = names[i];
        if (aside_open(&caches[i], &options) != ASIDE_OK ||
            aside_get_with_fetch(caches[i], "key", 3, &call, &result) != ASIDE_OK)
            return 1;
        aside_value_unref(result.value);
    }
    return aside_stats_write(caches, 2, append, stdout) != ASIDE_OK;
}
END
"$CC" -std=c11 -Wall -Wextra -Iinclude -o "$scratch/print" "$scratch/print.c" "$released/libaside.a" -pthread
"$scratch/print" >"$scratch/text" || fail "the program failed"
promtool check metrics <"$scratch/text" >"$scratch/said" 2>&1 || { cat "$scratch/said"; fail "promtool refuses it"; }
[ ! -s "$scratch/said" ] || { cat "$scratch/said"; fail "promtool would have it otherwise"; }
