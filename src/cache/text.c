/*
 * cache/text -- statuses, causes and the version, as text.
 */
#include <aside/aside.h>

#include <stddef.h>

static const struct text {
    aside_status status;
    const char *name, *meaning;
} texts[] = {
#define TEXT(status, number, meaning) {status, #status, meaning},
    ASIDE_STATUS_MAP(TEXT)
#undef TEXT
};

static const struct text *text_of(aside_status status)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].status == status)
            return &texts[i];
    return NULL;
}

const char *aside_strerror(aside_status status)
{
    const struct text *text = text_of(status);
    return text ? text->meaning : "unknown status";
}

const char *aside_status_name(aside_status status)
{
    const struct text *text = text_of(status);
    return text ? text->name : "ASIDE_UNKNOWN";
}

const char *aside_cause_name(aside_cause cause)
{
    switch (cause) {
#define WORD(name, number, word)                                                                   \
    case name: return word;
        ASIDE_CAUSE_MAP(WORD)
#undef WORD
    default: return "unknown";
    }
}

const char *aside_version(void)
{
    return ASIDE_VERSION;
}
