/*
 * check.h -- what is to be thought of a line that has arrived: the whole of the way, in order.
 */
#ifndef CHECK_H
#define CHECK_H

#include <aside/aside.h>

#include "certs.h"

/* X(name, text) */
#define VERDICT_MAP(X)                                                                             \
    X(VERIFIED, "verified")       /* signed by whom it says */                                     \
    X(FORGED, "forged")           /* not signed with the key of the certificate it names */        \
    X(UNTRUSTED, "untrusted")     /* nor is the certificate what it should be */                   \
    X(REFUSED, "refused")         /* names a URL that is not allowed, and nothing was fetched */   \
    X(UNAVAILABLE, "unavailable") /* the certificate cannot be had now: try again later */         \
    X(MALFORMED, "malformed")     /* no notification */

enum verdict {
#define VERDICT_ENUM(name, text) name,
    VERDICT_MAP(VERDICT_ENUM)
#undef VERDICT_ENUM
        VERDICTS
};

const char *verdict_text(enum verdict verdict);

struct check {
    enum verdict verdict;
    struct certs_answer answer; /* where a certificate was asked for */
};

struct check check_line(struct certs *certs, const char *line);

#endif
