/*
 * authority.h -- the other side: an authority, and certificates that it issues. For the example.
 */
#ifndef AUTHORITY_H
#define AUTHORITY_H

#include <openssl/x509.h>
#include <time.h>

struct identity {
    EVP_PKEY *key;
    X509 *cert;
    char *cert_pem;
};

/* X509v3 extensions, "name: value" as in openssl.cnf, in pairs. */
struct identity_extension {
    int nid;
    const char *value;
};

#define IDENTITY_EXTENSIONS 2

struct identity_plan {
    const char *name;
    time_t from, until;
    struct identity_extension extensions[IDENTITY_EXTENSIONS];
};

/* A fresh key and its certificate, signed by issuer, or by itself where that is NULL. Errors end
 * the program. */
struct identity identity_new(const struct identity_plan *plan, const struct identity *issuer);
void identity_free(struct identity *identity);

/* The key, to be freed. */
char *identity_key_pem(const struct identity *identity);

#endif
