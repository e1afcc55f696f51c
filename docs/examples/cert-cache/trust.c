/*
 * trust.c -- OpenSSL's verification of a certificate chain, which is done once a download.
 */
#include "trust.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <string.h>

#define SECONDS_A_DAY 86400

static X509 *parse(const char *pem, size_t size)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)size);
    X509 *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return cert;
}

bool trust_open(struct trust *trust, const char *authority_pem, const char *name)
{
    X509 *authority = parse(authority_pem, strlen(authority_pem));
    trust->name = name;
    trust->store = X509_STORE_new();
    bool ok = authority != NULL && trust->store != NULL &&
              X509_STORE_add_cert(trust->store, authority) == 1;
    X509_free(authority);
    return ok;
}

void trust_close(struct trust *trust)
{
    X509_STORE_free(trust->store);
}

static int verify(const struct trust *trust, X509 *cert, time_t now)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    int error = X509_V_ERR_OUT_OF_MEM;
    if (ctx != NULL && X509_STORE_CTX_init(ctx, trust->store, cert, NULL) == 1) {
        X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
        X509_VERIFY_PARAM_set_time(param, now);
        if (X509_VERIFY_PARAM_set1_host(param, trust->name, 0) == 1)
            error = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    }
    X509_STORE_CTX_free(ctx);
    return error;
}

int trust_read(const struct trust *trust, const char *pem, size_t size, time_t now, X509 **cert)
{
    *cert = parse(pem, size);
    int error = *cert != NULL ? verify(trust, *cert, now) : X509_V_ERR_UNSPECIFIED;
    if (error != X509_V_OK) {
        X509_free(*cert);
        *cert = NULL;
    }
    ERR_clear_error();
    return -error;
}

int64_t trust_left_s(const X509 *cert, time_t now)
{
    int days = 0, seconds = 0;
    ASN1_TIME *at = ASN1_TIME_set(NULL, now);
    if (at == NULL || ASN1_TIME_compare(X509_get0_notBefore(cert), at) > 0 ||
        ASN1_TIME_diff(&days, &seconds, at, X509_get0_notAfter(cert)) != 1)
        days = seconds = 0;
    ASN1_TIME_free(at);
    return (int64_t)days * SECONDS_A_DAY + seconds;
}
