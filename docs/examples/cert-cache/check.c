/*
 * check.c -- a line is read, its URL is allowed, the certificate is found, the signature verified.
 */
#include "check.h"

#include "notice.h"

const char *verdict_text(enum verdict verdict)
{
    static const char *const texts[] = {
#define VERDICT_TEXT(name, text) text,
        VERDICT_MAP(VERDICT_TEXT)
#undef VERDICT_TEXT
    };
    return texts[verdict];
}

struct desk {
    const struct notice *notice;
    time_t now;
    enum verdict verdict;
};

/* What was trusted when it was downloaded may be over by now: freshness is for the cache to say,
 * validity is not. */
static void judge(const X509 *cert, void *ctx)
{
    struct desk *desk = ctx;
    if (trust_left_s(cert, desk->now) <= 0)
        desk->verdict = UNTRUSTED;
    else
        desk->verdict = notice_is_signed_by(desk->notice, cert) ? VERIFIED : FORGED;
}

static struct check check_notice(struct certs *certs, const struct notice *notice)
{
    struct allowed_url url;
    struct desk desk = {notice, hands_date(certs->options.hands), UNAVAILABLE};
    if (!allow_url(&certs->options.allow, notice->cert_url, &url))
        return (struct check){.verdict = REFUSED};
    struct certs_answer answer = certs_use(certs, &url, judge, &desk);
    if (answer.status == ASIDE_E_FETCH && answer.problem < 0)
        desk.verdict = UNTRUSTED;
    return (struct check){desk.verdict, answer};
}

struct check check_line(struct certs *certs, const char *line)
{
    struct notice notice;
    if (!notice_read(&notice, line))
        return (struct check){.verdict = MALFORMED};
    struct check check = check_notice(certs, &notice);
    notice_free(&notice);
    return check;
}
