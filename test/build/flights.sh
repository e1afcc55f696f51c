#!/bin/sh
# A JSON parser of somebody else's takes what aside_flights_write() writes, and finds in it what there is.
. test/build/common.inc
needs python3

cat >"$scratch/print.c" <<'END'
#include <aside/aside.h>
#include <stdio.h>

static aside_status append(void *file, const char *text, size_t length)
{
    return fwrite(text, 1, length, file) == length ? ASIDE_OK : ASIDE_E_SYSTEM;
}

static aside_status hold(aside_fetch *fetch, void *arg)
{
    *(aside_fetch **)arg = aside_fetch_ref(fetch);
    return ASIDE_PENDING;
}

static void told(void *ctx, aside_status status, aside_result *result)
{
    (void)ctx, (void)status, (void)result;
}

int main(void)
{
    static aside_fetch *fetches[100];
    unsigned char key[256];
    aside_cache *cache;
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_result result = ASIDE_RESULT_INIT;
    options.name = "a \"strange\"\n\\name";
    options.max_bytes = 256 * 1024;
    options.close_wait_ms = 0;
    if (aside_open(&cache, &options) != ASIDE_OK)
        return 1;
    for (int i = 0; i < 100; i++) {
        aside_call call = {ASIDE_CALL, .fetch = hold, .arg = &fetches[i], .nonblocking = 1};
        for (int k = 0; k < 256; k++)
            key[k] = (unsigned char)(k + i);
        if (aside_get_async(cache, key, (size_t)i * 2, &call, NULL, told, NULL, &result) != ASIDE_PENDING)
            return 2;
    }
    if (aside_flights_write(&cache, 1, append, stdout) != ASIDE_OK)
        return 3;
    for (int i = 0; i < 100; i++)
        aside_fetch_unref(fetches[i]);
    aside_unref(cache);
    return 0;
}
END
cat >"$scratch/read.py" <<'END'
import json, sys
flights = json.load(sys.stdin)
hidden = sum(flight.get("not_shown", 0) for flight in flights)
shown = [flight for flight in flights if "key" in flight]
assert hidden > 0 and hidden + len(shown) == 100, (hidden, len(shown))
names = {"cache", "key", "age_ms", "waiters", "state", "background", "fenced", "superseded"}
for flight in flights:
    assert flight["cache"] == 'a "strange"\n\\name', flight
for flight in shown:
    assert set(flight) == names, flight
    key = [ord(character) for character in flight["key"]]
    assert not key or key == [(key[0] + i) % 256 for i in range(len(key))], flight
    assert len(key) == (min(2 * key[0], 128) if key else 0), flight
    assert flight["waiters"] == 1 and flight["state"] == "pending", flight
    assert not (flight["background"] or flight["fenced"] or flight["superseded"]), flight
END
"$CC" -std=c11 -Wall -Wextra -Iinclude -o "$scratch/print" "$scratch/print.c" "$released/libaside.a" -pthread
"$scratch/print" >"$scratch/text" || fail "the program failed"
python3 "$scratch/read.py" <"$scratch/text" || { cat "$scratch/text"; fail "not what there is"; }
