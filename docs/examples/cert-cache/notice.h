/*
 * notice.h -- a signed notification, in the manner of Amazon SNS: a JSON object a line.
 *
 *   {"Type": "Notification", "MessageId": "...", "Topic": "...", "Timestamp": "...",
 *    "Message": "...", "Signature": base64, "SigningCertURL": "https://..."}
 *
 * Signed, with SHA-256, are the names and values of all but the last two, in the order of their
 * names, each on a line of its own.
 */
#ifndef NOTICE_H
#define NOTICE_H

#include <jansson.h>
#include <openssl/x509.h>
#include <stdbool.h>

struct notice {
    json_t *json; /* owns the texts */
    const char *id, *message, *timestamp, *topic, *type;
    const char *signature, *cert_url;
};

/* False if the line is no notification; nothing is to be freed then. */
bool notice_read(struct notice *notice, const char *line);
void notice_free(struct notice *notice);

bool notice_is_signed_by(const struct notice *notice, const X509 *cert);

/* The line of a notice, all but its json and signature filled in; the caller frees it. NULL: out of
 * memory. */
char *notice_write(const struct notice *notice, EVP_PKEY *key);

#endif
