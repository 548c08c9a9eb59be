/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/holder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define TCP_STATE_TIME_WAIT 6 /* include/net/tcp_states.h of the kernel */
#define TCP_STATE_LISTEN 10
#define REMNANTS_MAX 4096 /* ended at a time */
#define ANSWER_SIZE 32768
#define ANSWER_TIMEOUT_S 1

/* Each instruction of the filter is followed by its operand; a jump of the rest + 4 refuses. */
struct port_filter {
    struct inet_diag_bc_op at_least;
    struct inet_diag_bc_op at_least_port;
    struct inet_diag_bc_op at_most;
    struct inet_diag_bc_op at_most_port;
};

struct diag_request {
    struct nlmsghdr header;
    struct inet_diag_req_v2 body;
    struct nlattr filter_header;
    struct port_filter filter;
};

/* Called for each socket on the port, whatever its address. */
typedef void (*diag_fn)(void *userdata, const struct inet_diag_msg *message);

/* The best match so far. */
struct match {
    const struct ip *ip;
    uint32_t inode; /* 0: none */
    int rank;
};

struct remnant {
    uint8_t family;
    struct inet_diag_sockid id;
};

struct remnants {
    const struct ip *ip;
    struct remnant *items;
    size_t count;
    bool is_held; /* something lives on the port */
};

static void request_init(struct diag_request *request, uint8_t family, uint8_t protocol,
                         uint16_t port)
{
    unsigned rest = sizeof(request->filter);
    unsigned step = 2 * sizeof(struct inet_diag_bc_op);

    *request = (struct diag_request){
        .header = {.nlmsg_len = sizeof(*request),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = family, .sdiag_protocol = protocol, .idiag_states = ~0u},
        .filter_header = {.nla_len = sizeof(request->filter_header) + sizeof(request->filter),
                          .nla_type = INET_DIAG_REQ_BYTECODE},
        .filter = {.at_least = {.code = INET_DIAG_BC_S_GE,
                                .yes = (unsigned char)step,
                                .no = (unsigned short)(rest + 4)},
                   .at_least_port = {.no = port},
                   .at_most = {.code = INET_DIAG_BC_S_LE,
                               .yes = (unsigned char)step,
                               .no = (unsigned short)(rest - step + 4)},
                   .at_most_port = {.no = port}}};
}

/* As IPv4 where it is one in IPv6 clothes. */
static struct ip diag_address(const struct inet_diag_msg *message)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *bytes = (const uint8_t *)message->id.idiag_src;

    if (message->idiag_family == AF_INET6 && memcmp(bytes, mapped, sizeof(mapped)) == 0)
        return ip_from_bytes(AF_INET, bytes + sizeof(mapped));
    return ip_from_bytes(message->idiag_family, bytes);
}

static bool diag_overlaps(const struct inet_diag_msg *message, const struct ip *wanted)
{
    struct ip ip = diag_address(message);

    return !ip_is_set(wanted) || ip_is_unspecified(wanted) || ip_is_unspecified(&ip) ||
           ip_equal(&ip, wanted);
}

/* A listener tells more than a connection, an exact address more than any. 0: no match. */
static int diag_rank(const struct inet_diag_msg *message, const struct ip *wanted)
{
    struct ip ip = diag_address(message);
    int rank = 1;

    if (!message->idiag_inode || !diag_overlaps(message, wanted))
        return 0;
    if (message->idiag_state == TCP_STATE_LISTEN)
        rank += 2;
    return ip_equal(&ip, wanted) ? rank + 1 : rank;
}

static void holder_consider(void *userdata, const struct inet_diag_msg *message)
{
    struct match *match = userdata;
    int rank = diag_rank(message, match->ip);

    if (rank > match->rank) {
        match->rank = rank;
        match->inode = message->idiag_inode;
    }
}

static void remnants_consider(void *userdata, const struct inet_diag_msg *message)
{
    struct remnants *remnants = userdata;

    if (!diag_overlaps(message, remnants->ip))
        return;
    if (message->idiag_state != TCP_STATE_TIME_WAIT)
        remnants->is_held = true;
    else if (remnants->count < REMNANTS_MAX)
        remnants->items[remnants->count++] =
            (struct remnant){.family = message->idiag_family, .id = message->id};
}

/* ---------------------------------------------------------------- sock_diag */

/* Returns false at the end of the dump. */
static bool answer_read(uint16_t port, diag_fn fn, void *userdata, void *answer, size_t length)
{
    struct nlmsghdr *header = answer;
    unsigned left = (unsigned)length;

    for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
        const struct inet_diag_msg *message = NLMSG_DATA(header);

        if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
            return false;
        if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY &&
            header->nlmsg_len >= NLMSG_LENGTH(sizeof(*message)) &&
            ntohs(message->id.idiag_sport) == port)
            fn(userdata, message);
    }
    return true;
}

static int diag_open(void)
{
    struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    return fd;
}

/* False when it can't be told. */
static bool diag_dump(uint8_t family, uint8_t protocol, uint16_t port, diag_fn fn, void *userdata)
{
    _cleanup_close_ int fd = diag_open();
    _cleanup_free_ void *answer = malloc(ANSWER_SIZE);
    struct diag_request request;
    ssize_t length;

    if (fd < 0 || !answer)
        return false;
    request_init(&request, family, protocol, port);
    if (send(fd, &request, sizeof(request), 0) < 0)
        return false;
    do
        length = recv(fd, answer, ANSWER_SIZE, 0);
    while (length > 0 && answer_read(port, fn, userdata, answer, (size_t)length));
    return length > 0;
}

static bool diag_dump_families(uint8_t protocol, const struct ip *ip, uint16_t port, diag_fn fn,
                               void *userdata)
{
    bool ipv4_too = !ip_is_set(ip) || ip->family == AF_INET || ip_is_unspecified(ip);

    return (!ipv4_too || diag_dump(AF_INET, protocol, port, fn, userdata)) &&
           diag_dump(AF_INET6, protocol, port, fn, userdata);
}

static bool remnant_end(int fd, const struct remnant *remnant)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 body;
    } request = {.header = {.nlmsg_len = sizeof(request),
                            .nlmsg_type = SOCK_DESTROY,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
                 .body = {.sdiag_family = remnant->family,
                          .sdiag_protocol = IPPROTO_TCP,
                          .idiag_states = ~0u,
                          .id = remnant->id}};
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        struct nlmsghdr rest[4]; /* an extended ack, cut off */
    } answer;

    if (send(fd, &request, sizeof(request), 0) < 0)
        return false;
    return recv(fd, &answer, sizeof(answer), 0) >= (ssize_t)NLMSG_LENGTH(sizeof(answer.error)) &&
           answer.header.nlmsg_type == NLMSG_ERROR && answer.error.error == 0;
}

unsigned port_remnants_end(const struct ip *ip, uint16_t port)
{
    _cleanup_free_ struct remnant *items = calloc(REMNANTS_MAX, sizeof(*items));
    struct remnants remnants = {.ip = ip, .items = items};
    _cleanup_close_ int fd = diag_open();
    unsigned ended = 0;

    if (fd < 0 || !items ||
        !diag_dump_families(IPPROTO_TCP, ip, port, remnants_consider, &remnants) ||
        remnants.is_held)
        return 0;
    for (size_t i = 0; i < remnants.count; i++)
        ended += remnant_end(fd, &items[i]);
    return ended;
}

/* ---------------------------------------------------------------- processes */

static bool process_has(int proc_fd, const char *pid, const char *wanted)
{
    char path[64];
    struct dirent *entry;
    DIR *directory;
    bool found = false;
    int fd;

    snprintf(path, sizeof(path), "%.20s/fd", pid);
    fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    while (!found && (entry = readdir(directory))) {
        char target[64];
        ssize_t length = readlinkat(fd, entry->d_name, target, sizeof(target) - 1);

        if (length > 0) {
            target[length] = '\0';
            found = strcmp(target, wanted) == 0;
        }
    }
    closedir(directory);
    return found;
}

static void program_read(int proc_fd, const char *pid, char *ret_program, size_t size)
{
    char path[64];
    ssize_t length;
    int fd;

    snprintf(path, sizeof(path), "%.20s/comm", pid);
    fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    length = fd < 0 ? -1 : read(fd, ret_program, size - 1);
    if (fd >= 0)
        close(fd);
    if (length < 0)
        length = 0;
    ret_program[length] = '\0';
    ret_program[strcspn(ret_program, "\n")] = '\0';
}

static bool process_find(uint32_t inode, struct port_holder *ret_holder)
{
    struct port_holder holder = {0};
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    char wanted[32];

    if (!proc)
        return false;
    snprintf(wanted, sizeof(wanted), "socket:[%u]", inode);
    while (!holder.pid && (entry = readdir(proc))) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);

        if (pid <= 0 || *end || pid == getpid() || !process_has(dirfd(proc), entry->d_name, wanted))
            continue;
        holder.pid = (pid_t)pid;
        program_read(dirfd(proc), entry->d_name, holder.program, sizeof(holder.program));
    }
    closedir(proc);
    if (holder.pid)
        *ret_holder = holder;
    return holder.pid != 0;
}

bool port_holder_find(uint8_t protocol, const struct ip *ip, uint16_t port,
                      struct port_holder *ret_holder)
{
    struct match match = {.ip = ip};

    diag_dump_families(protocol, ip, port, holder_consider, &match);
    return match.inode && process_find(match.inode, ret_holder);
}

const char *port_holder_format(uint8_t protocol, const struct ip *ip, uint16_t port, char *text,
                               size_t size)
{
    struct port_holder holder;

    text[0] = '\0';
    if (port_holder_find(protocol, ip, port, &holder))
        snprintf(text, size, "%s (pid %d)", holder.program, (int)holder.pid);
    return text;
}
