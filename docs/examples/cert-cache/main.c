/*
 * main.c -- signed notifications are verified with certificates that are fetched and cached.
 *
 * Exits with 1 if something that must be true is not.
 */
#include <curl/curl.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "example.h"
#include "messages.h"
#include "report.h"

#define DEFAULT_CALLERS 200
#define DEFAULT_COUNT 1140
#define DEFAULT_TIMEOUT_MS 5000

struct arguments {
    size_t callers, count;
    long timeout_ms;
    const char *path;
};

static void usage(FILE *to)
{
    fprintf(to,
            "usage: cert-cache [--callers N] [--count N] [--timeout-ms N] [--messages FILE]\n"
            "  --callers N      that come at once (%d)\n"
            "  --count N        messages in the stream (%d)\n"
            "  --timeout-ms N   of a download (%d)\n"
            "  --messages FILE  writes the stream's messages there, to look at\n",
            DEFAULT_CALLERS, DEFAULT_COUNT, DEFAULT_TIMEOUT_MS);
}

static long number(const char *option, const char *text)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 2 || value > 1000000)
        die("%s wants a number of at least 2, not \"%s\"", option, text);
    return value;
}

static void parse(int argc, char **argv, struct arguments *arguments)
{
    *arguments = (struct arguments){DEFAULT_CALLERS, DEFAULT_COUNT, DEFAULT_TIMEOUT_MS, NULL};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            exit(0);
        }
        if (strcmp(argv[i], "--callers") == 0)
            arguments->callers = (size_t)number(argv[i++], value);
        else if (strcmp(argv[i], "--count") == 0)
            arguments->count = (size_t)number(argv[i++], value);
        else if (strcmp(argv[i], "--timeout-ms") == 0)
            arguments->timeout_ms = number(argv[i++], value);
        else if (strcmp(argv[i], "--messages") == 0 && value[0] != '\0')
            arguments->path = argv[++i];
        else {
            usage(stderr);
            exit(2);
        }
    }
}

static void open_all(struct example *example, const struct arguments *arguments)
{
    /* libcurl with CURLOPT_NOSIGNAL leaves it to us that a lost connection does not kill. */
    signal(SIGPIPE, SIG_IGN);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        die("libcurl (package libcurl4) cannot be started");
    world_open(&example->world);
    world_certs(&example->world, &example->certs, arguments->timeout_ms);
    crew_open(&example->crew, arguments->callers);
    example->orders = messages_new(&example->world, ORDERS, PAGE("orders"), arguments->callers);
    example->messages = arguments->count;
    example->messages_path = arguments->path;
}

static void close_all(struct example *example)
{
    crew_close(&example->crew);
    lines_free(example->orders, example->crew.size);
    certs_close(&example->certs);
    trust_close(&example->certs.options.trust);
    world_close(&example->world);
    curl_global_cleanup();
}

static void introduce(const struct example *example)
{
    printf("libaside %s · %s · libcurl %s · certificates at https://%s\n\n", aside_version(),
           OpenSSL_version(OPENSSL_VERSION), curl_version_info(CURLVERSION_NOW)->version,
           example->world.authority_part);
    fflush(stdout);
}

static void conclude(const struct example *example)
{
    if (report_failures() > 0)
        fprintf(stderr, "\ncert-cache: %d of the checks FAILED, see above\n", report_failures());
    printf("\ncert-cache: messages=%zu", example->messages);
    for (int i = 0; i < VERDICTS; i++)
        printf(" %s=%lu", verdict_text(i), example->verdicts[i]);
    printf(" callers=%zu downloads_cold=%lu downloads_expiry=%lu downloads_failing=%lu "
           "downloads_unshared=%lu shared_cold=%lu shared_expiry=%lu locks_on_hits=%lu\n",
           example->crew.size, example->downloads_cold, example->downloads_expiry,
           example->downloads_failing, example->downloads_unshared, example->shared_cold,
           example->shared_expiry, example->locks_on_hits);
}

int main(int argc, char **argv)
{
    static struct example example;
    struct arguments arguments;
    parse(argc, argv, &arguments);
    open_all(&example, &arguments);
    introduce(&example);
    cold_scenario(&example);
    expiry_scenario(&example);
    unshared_scenario(&example);
    failing_scenario(&example);
    slow_scenario(&example);
    stream_scenario(&example);
    renewal_scenario(&example);
    hits_scenario(&example);
    conclude(&example);
    close_all(&example);
    return report_failures() > 0;
}
