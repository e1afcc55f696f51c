/*
 * lines.c -- two buffers of one line each.
 */
#include "lines.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int lines_listen(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

bool lines_receive(struct lines *lines)
{
    ssize_t len = recv(lines->fd, lines->in + lines->in_len, LINE - lines->in_len, 0);
    if (len < 0)
        return errno == EAGAIN || errno == EINTR;
    lines->in_len += (size_t)len;
    return len > 0 && (lines->in_len < LINE || memchr(lines->in, '\n', LINE) != NULL);
}

bool lines_take(struct lines *lines, char line[LINE], size_t *len)
{
    char *end = memchr(lines->in, '\n', lines->in_len);
    if (end == NULL)
        return false;
    *len = (size_t)(end - lines->in);
    memcpy(line, lines->in, *len);
    lines->in_len -= *len + 1;
    memmove(lines->in, end + 1, lines->in_len);
    return true;
}

void lines_say(struct lines *lines, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    int len = vsnprintf(lines->out, LINE, form, args);
    va_end(args);
    lines->out_len = len < LINE ? (size_t)len : LINE - 1;
    lines->out[lines->out_len++] = '\n';
}

bool lines_flush(struct lines *lines)
{
    if (lines->out_len == 0)
        return true;
    ssize_t sent = send(lines->fd, lines->out, lines->out_len, MSG_NOSIGNAL);
    if (sent > 0) {
        lines->out_len -= (size_t)sent;
        memmove(lines->out, lines->out + sent, lines->out_len);
    }
    return lines->out_len == 0;
}
