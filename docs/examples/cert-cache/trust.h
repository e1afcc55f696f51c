/*
 * trust.h -- which certificates are believed: one authority's, for one name, between their dates.
 */
#ifndef TRUST_H
#define TRUST_H

#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct trust {
    X509_STORE *store;
    const char *name; /* that a signing certificate must be made out to */
};

/* authority_pem is read, name is kept. */
bool trust_open(struct trust *trust, const char *authority_pem, const char *name);
void trust_close(struct trust *trust);

/* Returns 0 and a certificate that the caller owns, or a negative number: minus the X509_V_ERR_
 * that says what is wrong with it. */
int trust_read(const struct trust *trust, const char *pem, size_t size, time_t now, X509 **cert);

/* Seconds until the certificate's last one; 0 or less outside its dates. */
int64_t trust_left_s(const X509 *cert, time_t now);

#endif
