/*
 * certs.h -- signing certificates by their URL, each downloaded and checked once a day.
 *
 * This is the file to copy, with certs.c: all that the example asks of libaside is there.
 */
#ifndef CERTS_H
#define CERTS_H

#include <aside/aside.h>
#include <openssl/x509.h>

#include "allow.h"
#include "hands.h"
#include "trust.h"

struct certs_options {
    struct allow allow;
    struct trust trust;
    const char *authority_pem; /* for the server that is asked */
    struct hands *hands;
    long timeout_ms; /* of a download */
};

/* One must stay until certs_close() has returned: fetches look at it. */
struct certs {
    struct certs_options options;
    aside_cache *cache;
};

/* What came of one use. */
struct certs_answer {
    aside_status status;
    aside_outcome outcome;
    int shared;  /* the download was, with other callers */
    int problem; /* with ASIDE_E_FETCH: as download() has it, or if negative as trust_read() */
};

/* Looks at a certificate, which is valid until it returns and may be looked at by others. */
typedef void certs_use_fn(const X509 *cert, void *ctx);

aside_status certs_open(struct certs *certs, const struct certs_options *options);
void certs_close(struct certs *certs);

/* Calls use with the certificate of that URL, downloaded now if need be; not at all unless the
 * answer's status is ASIDE_OK. */
struct certs_answer certs_use(struct certs *certs, const struct allowed_url *url, certs_use_fn *use,
                              void *ctx);

#endif
