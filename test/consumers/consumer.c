/* A program of somebody else's: built by each way that a build can find an installed libaside. */
#include <aside/aside.h>
#include <aside/group.h>
#include <stdio.h>
#include <string.h>

static aside_status load(aside_fetch *fetch, void *arg)
{
    size_t len;
    const char *key = (const char *)aside_fetch_key(fetch, &len);
    char text[32];
    int size = snprintf(text, sizeof text, "value of %.*s", (int)len, key);
    ++*(int *)arg;
    return aside_fetch_copy(fetch, text, (size_t)size + 1);
}

int main(void)
{
    aside_cache *cache = NULL;
    aside_options options = ASIDE_OPTIONS_INIT;
    int fetches = 0;
    aside_call call = {ASIDE_CALL, .fetch = load, .arg = &fetches, .ttl_ms = 60000};

    options.name = "consumer";
    if (strcmp(aside_version(), ASIDE_VERSION) != 0 || aside_open(&cache, &options) != ASIDE_OK)
        return 1;
    for (int i = 0; i < 2; i++) {
        aside_result result = ASIDE_RESULT_INIT;
        aside_status status = aside_get_with_fetch(cache, ASIDE_STR("key"), &call, &result);
        if (status != ASIDE_OK)
            return fprintf(stderr, "%s\n", aside_strerror(status)), 1;
        printf("%s: %s\n", result.outcome == ASIDE_OUTCOME_HIT ? "hit" : "fetched",
               (const char *)aside_value_data(result.value));
        aside_value_unref(result.value);
    }
    aside_status closed = aside_close(cache);
    aside_unref(cache);
    if (closed != ASIDE_OK)
        return 1;

    aside_group *group = NULL;
    aside_result result = ASIDE_RESULT_INIT;
    if (aside_group_new(&group, NULL) != ASIDE_OK ||
        aside_group_do(group, ASIDE_STR("lone key"), &call, &result) != ASIDE_OK)
        return 1;
    printf("group: %s\n", (const char *)aside_value_data(result.value));
    aside_value_unref(result.value);
    aside_group_unref(group);
    printf("fetches: %d\n", fetches);
    return 0;
}
