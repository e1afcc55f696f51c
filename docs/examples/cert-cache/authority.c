/*
 * authority.c -- keys on P-256, which are made in no time, and certificates signed with SHA-256.
 */
#include "authority.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

static void must(int ok)
{
    if (ok != 1)
        die("OpenSSL (package libssl3) cannot make a certificate");
}

/* What was written to bio, as a string; frees bio. */
static char *text_of(BIO *bio)
{
    char *bytes;
    long len = BIO_get_mem_data(bio, &bytes);
    char *text = len > 0 ? strndup(bytes, (size_t)len) : NULL;
    must(text != NULL);
    BIO_free(bio);
    return text;
}

static void set_dates(X509 *cert, time_t from, time_t until)
{
    must(ASN1_TIME_set(X509_getm_notBefore(cert), from) != NULL);
    must(ASN1_TIME_set(X509_getm_notAfter(cert), until) != NULL);
}

static void set_names(X509 *cert, const char *name, const X509 *issuer)
{
    X509_NAME *subject = X509_get_subject_name(cert);
    must(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                    -1, 0));
    must(X509_set_issuer_name(cert, X509_get_subject_name(issuer)));
}

static void add_extensions(X509 *cert, X509 *issuer,
                           const struct identity_extension extensions[IDENTITY_EXTENSIONS])
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    for (int i = 0; i < IDENTITY_EXTENSIONS && extensions[i].value != NULL; i++) {
        X509_EXTENSION *extension =
            X509V3_EXT_conf_nid(NULL, &ctx, extensions[i].nid, extensions[i].value);
        must(extension != NULL && X509_add_ext(cert, extension, -1));
        X509_EXTENSION_free(extension);
    }
}

struct identity identity_new(const struct identity_plan *plan, const struct identity *issuer)
{
    static long serial;
    struct identity made = {EVP_EC_gen("P-256"), X509_new(), NULL};
    BIO *bio = BIO_new(BIO_s_mem());
    must(made.key != NULL && made.cert != NULL && bio != NULL);
    if (issuer == NULL)
        issuer = &made;
    must(X509_set_version(made.cert, X509_VERSION_3));
    must(ASN1_INTEGER_set(X509_get_serialNumber(made.cert), ++serial));
    must(X509_set_pubkey(made.cert, made.key));
    set_dates(made.cert, plan->from, plan->until);
    set_names(made.cert, plan->name, issuer->cert);
    add_extensions(made.cert, issuer->cert, plan->extensions);
    must(X509_sign(made.cert, issuer->key, EVP_sha256()) > 0);
    must(PEM_write_bio_X509(bio, made.cert));
    made.cert_pem = text_of(bio);
    return made;
}

void identity_free(struct identity *identity)
{
    EVP_PKEY_free(identity->key);
    X509_free(identity->cert);
    free(identity->cert_pem);
}

char *identity_key_pem(const struct identity *identity)
{
    BIO *bio = BIO_new(BIO_s_mem());
    must(bio != NULL &&
         PEM_write_bio_PrivateKey(bio, identity->key, NULL, NULL, 0, NULL, NULL) == 1);
    return text_of(bio);
}
