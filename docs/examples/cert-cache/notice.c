/*
 * notice.c -- JSON by jansson, signatures and base64 by OpenSSL.
 */
#include "notice.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIGNATURE 512 /* bytes: RSA of 4096 bits */
#define MAX_BASE64 (4 * (MAX_SIGNATURE + 2) / 3 + 4)

/* ---- the text that is signed ----------------------------------------------------------------- */

/* Only the message may have lines: otherwise two notices could have the same text to sign. */
static bool is_unambiguous(const struct notice *notice)
{
    return strchr(notice->id, '\n') == NULL && strchr(notice->timestamp, '\n') == NULL &&
           strchr(notice->topic, '\n') == NULL && strchr(notice->type, '\n') == NULL;
}

static char *text_to_sign(const struct notice *notice)
{
    char *text;
    int len = asprintf(&text, "Message\n%s\nMessageId\n%s\nTimestamp\n%s\nTopic\n%s\nType\n%s\n",
                       notice->message, notice->id, notice->timestamp, notice->topic, notice->type);
    return len >= 0 ? text : NULL;
}

/* ---- reading --------------------------------------------------------------------------------- */

bool notice_read(struct notice *notice, const char *line)
{
    notice->json = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    bool ok = json_unpack(notice->json, "{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "MessageId",
                          &notice->id, "Message", &notice->message, "Timestamp", &notice->timestamp,
                          "Topic", &notice->topic, "Type", &notice->type, "Signature",
                          &notice->signature, "SigningCertURL", &notice->cert_url) == 0 &&
              is_unambiguous(notice);
    if (!ok)
        notice_free(notice);
    return ok;
}

void notice_free(struct notice *notice)
{
    json_decref(notice->json);
    notice->json = NULL;
}

/* Returns the number of bytes, or -1. */
static int from_base64(const char *text, unsigned char bytes[MAX_BASE64])
{
    int len = -1, rest = 0;
    size_t text_len = strlen(text);
    EVP_ENCODE_CTX *ctx = EVP_ENCODE_CTX_new();
    if (ctx != NULL && text_len < MAX_BASE64) {
        EVP_DecodeInit(ctx);
        if (EVP_DecodeUpdate(ctx, bytes, &len, (const unsigned char *)text, (int)text_len) < 0 ||
            EVP_DecodeFinal(ctx, bytes + len, &rest) != 1)
            len = -1;
    }
    EVP_ENCODE_CTX_free(ctx);
    return len;
}

bool notice_is_signed_by(const struct notice *notice, const X509 *cert)
{
    unsigned char signature[MAX_BASE64];
    int len = from_base64(notice->signature, signature);
    char *text = text_to_sign(notice);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = len >= 0 && text != NULL && ctx != NULL &&
              EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, X509_get0_pubkey(cert)) == 1 &&
              EVP_DigestVerify(ctx, signature, (size_t)len, (const unsigned char *)text,
                               strlen(text)) == 1;
    EVP_MD_CTX_free(ctx);
    free(text);
    ERR_clear_error();
    return ok;
}

/* ---- writing --------------------------------------------------------------------------------- */

static bool sign(const char *text, EVP_PKEY *key, char base64[MAX_BASE64])
{
    unsigned char signature[MAX_SIGNATURE];
    size_t len = sizeof signature;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestSign(ctx, signature, &len, (const unsigned char *)text, strlen(text)) == 1;
    EVP_MD_CTX_free(ctx);
    if (ok)
        EVP_EncodeBlock((unsigned char *)base64, signature, (int)len);
    return ok;
}

char *notice_write(const struct notice *notice, EVP_PKEY *key)
{
    char base64[MAX_BASE64];
    char *text = text_to_sign(notice), *line = NULL;
    json_t *json = NULL;
    if (text != NULL && sign(text, key, base64))
        json =
            json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "Type", notice->type, "MessageId",
                      notice->id, "Topic", notice->topic, "Timestamp", notice->timestamp, "Message",
                      notice->message, "Signature", base64, "SigningCertURL", notice->cert_url);
    if (json != NULL)
        line = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    free(text);
    return line;
}
