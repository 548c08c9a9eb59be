/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client library (moat/moat.h): one blocking connection.
 *
 * Received bytes are kept in `buffer` from `start` on; `scanned` of them are known to hold no
 * newline. Events that arrive while moat_call waits for its answer are kept in `kept` and handed
 * out by moat_receive before anything newer. A descriptor belongs to the line that begins last
 * among the bytes that came with it: the kernel ends a read after bytes that carry descriptors, and
 * the daemon sends such a line by itself. */
#include "moat/moat.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "base/cleanup.h"
#include "proto/proto.h"

#define SOCKET_DEFAULT "/run/moat/moat.sock"
#define LINE_MAX_BYTES                                                         \
    ((size_t)256 * 1024 * 1024) /* of an answer: all guests of a full host fit \
                                 */
#define READ_BYTES ((size_t)64 * 1024)

struct kept_line {
    struct kept_line *next;
    char *line;
    size_t length;
};

struct moat {
    int fd;
    uint32_t last_id;
    char *buffer;
    size_t allocated;
    size_t start;
    size_t end;
    size_t scanned;
    int received_fd;        /* -1: none waits for its line */
    size_t received_fd_pos; /* where that line begins in the buffer */
    struct kept_line *kept;
};

static int socket_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = -1;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        if (errno != EINTR)
            return -errno;
    return TAKE_FD(fd);
}

int moat_connect(const char *path, struct moat **ret_moat)
{
    struct moat *moat;
    int fd;

    if (!path)
        path = secure_getenv("MOAT_SOCKET");
    if (!path || !path[0])
        path = SOCKET_DEFAULT;
    fd = socket_connect(path);
    if (fd < 0)
        return fd;
    moat = calloc(1, sizeof(*moat));
    if (!moat) {
        close(fd);
        return -ENOMEM;
    }
    moat->fd = fd;
    moat->received_fd = -1;
    *ret_moat = moat;
    return 0;
}

void moat_close(struct moat *moat)
{
    if (!moat)
        return;
    while (moat->kept) {
        struct kept_line *kept = moat->kept;

        moat->kept = kept->next;
        free(kept->line);
        free(kept);
    }
    if (moat->received_fd >= 0)
        close(moat->received_fd);
    close(moat->fd);
    free(moat->buffer);
    free(moat);
}

int moat_fd(const struct moat *moat)
{
    return moat->fd;
}

/* --- sending --- */

static int send_some(int fd, struct msghdr *message, size_t *ret_sent)
{
    ssize_t n;

    do
        n = sendmsg(fd, message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *ret_sent = (size_t)n;
    return 0;
}

/* Sends all of the message; descriptors go with its first byte. */
static int send_all(int fd, struct msghdr *message)
{
    while (message->msg_iovlen > 0) {
        size_t sent = 0;
        int r = send_some(fd, message, &sent);

        if (r < 0)
            return r;
        message->msg_control = NULL;
        message->msg_controllen = 0;
        while (message->msg_iovlen > 0 && sent >= message->msg_iov->iov_len) {
            sent -= message->msg_iov->iov_len;
            message->msg_iov++;
            message->msg_iovlen--;
        }
        if (message->msg_iovlen > 0) {
            message->msg_iov->iov_base = (char *)message->msg_iov->iov_base + sent;
            message->msg_iov->iov_len -= sent;
        }
    }
    return 0;
}

int moat_send(struct moat *moat, const char *line, size_t length, const int *fds, size_t n_fds)
{
    union {
        char bytes[CMSG_SPACE(PROTO_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    char newline = '\n';
    _cleanup_free_ char *copy = malloc(length ? length : 1);
    struct iovec parts[2] = {{.iov_base = copy, .iov_len = length},
                             {.iov_base = &newline, .iov_len = 1}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    if (!copy)
        return -ENOMEM;
    if (n_fds > PROTO_FDS_MAX)
        return -E2BIG;
    memcpy(copy, line, length);
    if (n_fds > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
    }
    return send_all(moat->fd, &message);
}

/* --- receiving --- */

/* Makes room for one more read behind `end`. */
static int buffer_reserve(struct moat *moat)
{
    size_t used = moat->end - moat->start;
    size_t wanted;
    char *grown;

    if (moat->start > 0) {
        memmove(moat->buffer, moat->buffer + moat->start, used);
        if (moat->received_fd >= 0)
            moat->received_fd_pos -= moat->start;
        moat->start = 0;
        moat->end = used;
    }
    if (moat->allocated - used >= READ_BYTES)
        return 0;
    if (used >= LINE_MAX_BYTES)
        return -EMSGSIZE;
    wanted = (moat->allocated ? moat->allocated : READ_BYTES) * 2;
    grown = realloc(moat->buffer, wanted);
    if (!grown)
        return -ENOMEM;
    moat->buffer = grown;
    moat->allocated = wanted;
    return 0;
}

static void keep_fd(struct moat *moat, int fd, size_t first, size_t last)
{
    size_t begin = last;

    while (begin > first && moat->buffer[begin - 1] == '\n')
        begin--;
    while (begin > moat->start && moat->buffer[begin - 1] != '\n')
        begin--;
    if (moat->received_fd >= 0)
        close(moat->received_fd);
    moat->received_fd = fd;
    moat->received_fd_pos = begin;
}

/* Takes the descriptors of a message: the first is kept, any other is closed. */
static void take_fds(struct moat *moat, struct msghdr *message, size_t first, size_t last)
{
    bool kept = false;

    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header)) {
        size_t count;

        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
            if (kept)
                close(fd);
            else
                keep_fd(moat, fd, first, last);
            kept = true;
        }
    }
}

static int read_some(struct moat *moat)
{
    union {
        char bytes[CMSG_SPACE(PROTO_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    size_t before;
    ssize_t n;
    int r = buffer_reserve(moat);

    if (r < 0)
        return r;
    part.iov_base = moat->buffer + moat->end;
    part.iov_len = moat->allocated - moat->end;
    do
        n = recvmsg(moat->fd, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (n == 0)
        return -ECONNRESET;
    before = moat->end;
    moat->end += (size_t)n;
    take_fds(moat, &message, before, moat->end);
    return 0;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* deadline_ms -1: for ever. */
static int wait_readable(const struct moat *moat, int64_t deadline_ms)
{
    struct pollfd poll_fd = {.fd = moat->fd, .events = POLLIN};

    for (;;) {
        int64_t left = deadline_ms < 0 ? -1 : deadline_ms - now_ms();
        int r = poll(&poll_fd, 1, deadline_ms < 0 ? -1 : left > 0 ? (int)left : 0);

        if (r > 0)
            return 0;
        if (r == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

/* Hands out the buffered line that ends before `newline`. */
static int take_line(struct moat *moat, const char *newline, char **ret_line, size_t *ret_length,
                     int *ret_fd)
{
    size_t length = (size_t)(newline - (moat->buffer + moat->start));
    char *line = malloc(length + 1);

    if (!line)
        return -ENOMEM;
    memcpy(line, moat->buffer + moat->start, length);
    line[length] = '\0';
    if (ret_fd)
        *ret_fd = -1;
    if (moat->received_fd >= 0 && moat->received_fd_pos <= moat->start) {
        if (ret_fd)
            *ret_fd = moat->received_fd;
        else
            close(moat->received_fd);
        moat->received_fd = -1;
    }
    moat->start += length + 1;
    moat->scanned = 0;
    *ret_line = line;
    *ret_length = length;
    return 0;
}

static int receive_line(struct moat *moat, int64_t deadline_ms, char **ret_line, size_t *ret_length,
                        int *ret_fd)
{
    for (;;) {
        size_t used = moat->end - moat->start;
        const char *newline = NULL;
        int r;

        if (used > moat->scanned)
            newline =
                memchr(moat->buffer + moat->start + moat->scanned, '\n', used - moat->scanned);
        if (newline)
            return take_line(moat, newline, ret_line, ret_length, ret_fd);
        moat->scanned = used;
        r = wait_readable(moat, deadline_ms);
        if (r == 0)
            r = read_some(moat);
        if (r < 0)
            return r;
    }
}

int moat_receive(struct moat *moat, int timeout_ms, char **ret_line, size_t *ret_length,
                 int *ret_fd)
{
    struct kept_line *kept = moat->kept;

    if (!kept)
        return receive_line(moat, timeout_ms < 0 ? -1 : now_ms() + timeout_ms, ret_line, ret_length,
                            ret_fd);
    moat->kept = kept->next;
    *ret_line = kept->line;
    *ret_length = kept->length;
    if (ret_fd)
        *ret_fd = -1;
    free(kept);
    return 0;
}

/* --- calls --- */

/* Takes the line over, also on failure. */
static int keep_line(struct moat *moat, char *line, size_t length)
{
    struct kept_line *kept = calloc(1, sizeof(*kept));
    struct kept_line **last = &moat->kept;

    if (!kept) {
        free(line);
        return -ENOMEM;
    }
    *kept = (struct kept_line){.line = line, .length = length};
    while (*last)
        last = &(*last)->next;
    *last = kept;
    return 0;
}

static int send_call(struct moat *moat, const char *method, const char *params)
{
    struct text text = {0};
    int r = -ENOMEM;

    text_append(&text,
                "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"%s\",\"params\":", ++moat->last_id,
                method);
    text_append_n(&text, params, strlen(params));
    text_append_n(&text, "}", 1);
    if (!text.failed)
        r = moat_send(moat, text.data, text.length, NULL, 0);
    text_deinit(&text);
    return r;
}

/* 1: an event, 0: an answer. */
static int line_is_event(const char *line, size_t length)
{
    struct error error = ERROR_INIT;
    struct proto_response *response;
    int r = proto_response_parse(line, length, &response, &error);

    if (r < 0)
        return r;
    r = proto_response_is_event(response);
    proto_response_free(response);
    return r;
}

int moat_call(struct moat *moat, const char *method, const char *params, char **ret_response)
{
    int r;

    /* One line each: neither may end the document early. */
    if (strpbrk(method, "\"\\\n\r") || (params && strpbrk(params, "\n\r")))
        return -EINVAL;
    r = send_call(moat, method, params ? params : "{}");
    while (r == 0) {
        char *line;
        size_t length;

        r = receive_line(moat, -1, &line, &length, NULL);
        if (r < 0)
            return r;
        r = line_is_event(line, length);
        if (r == 0) {
            *ret_response = line;
            return 0;
        }
        if (r < 0) {
            free(line);
            return r;
        }
        r = keep_line(moat, line, length);
    }
    return r;
}
