/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nf_tables handles a whole transaction inside sendmsg(2): when it returns, the verdict (an ack of
 * the last message, or one error per refused message) lies in the receive queue already. So a
 * commit is one send and a few non-blocking receives, and the socket never holds anything between
 * two calls. */
#include "nat/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/yield.h"

#define RECEIVE_BUFFER (4 * 1024 * 1024) /* one error for each message of a large transaction */
#define CHUNK 65536                      /* one datagram of a dump is below 32 KiB */
#define DUMP_BUFFER_MIN 8192

struct nft_socket {
    struct mnl_socket *mnl;
    uint32_t port;
    uint32_t sequence;
    size_t send_buffer;
    bool yields; /* in the middle of dumps */
    _Alignas(struct nlmsghdr) char receive[CHUNK];
};

/* --- transaction --- */

static size_t message_header(void)
{
    return MNL_ALIGN(sizeof(struct nlmsghdr)) + MNL_ALIGN(sizeof(struct nfgenmsg));
}

void nft_transaction_init(struct nft_transaction *transaction, uint8_t family)
{
    *transaction = (struct nft_transaction){.family = family};
}

void nft_transaction_deinit(struct nft_transaction *transaction)
{
    free(transaction->data);
    free(transaction->labels);
    nft_transaction_init(transaction, transaction->family);
}

static bool transaction_reserve(struct nft_transaction *transaction, size_t size)
{
    size_t wanted = transaction->length + size;

    if (wanted <= transaction->capacity)
        return true;
    wanted = wanted < CHUNK ? CHUNK : wanted * 2;
    char *data = realloc(transaction->data, wanted);
    if (!data)
        return false;
    transaction->data = data;
    transaction->capacity = wanted;
    return true;
}

static bool transaction_label(struct nft_transaction *transaction, const char *label)
{
    if (transaction->messages == transaction->n_labels) {
        size_t count = transaction->n_labels ? transaction->n_labels * 2 : 64;
        const char **labels = realloc(transaction->labels, count * sizeof(*labels));

        if (!labels)
            return false;
        transaction->labels = labels;
        transaction->n_labels = count;
    }
    transaction->labels[transaction->messages] = label;
    return true;
}

/* Room for one header of a message at the end; the length is only moved on by transaction_append.
 */
static struct nlmsghdr *transaction_header(struct nft_transaction *transaction, uint16_t type,
                                           uint16_t flags, uint8_t family, uint16_t resource)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(transaction->data + transaction->length);
    struct nfgenmsg *extra = mnl_nlmsg_put_extra_header(message, sizeof(*extra));

    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | flags;
    extra->nfgen_family = family;
    extra->version = NFNETLINK_V0;
    extra->res_id = htons(resource);
    return message;
}

static void transaction_append(struct nft_transaction *transaction, const struct nlmsghdr *message)
{
    transaction->length += MNL_ALIGN(message->nlmsg_len);
}

/* The batch begin stands before the first message. */
static void transaction_begin(struct nft_transaction *transaction)
{
    if (transaction->length == 0)
        transaction_append(transaction, transaction_header(transaction, NFNL_MSG_BATCH_BEGIN, 0,
                                                           AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
}

struct nlmsghdr *nft_transaction_open(struct nft_transaction *transaction, uint16_t type,
                                      uint16_t flags, size_t room, const char *label)
{
    /* One more header each for the batch's begin and its end. */
    if (transaction->failed || !transaction_reserve(transaction, 3 * message_header() + room) ||
        !transaction_label(transaction, label)) {
        transaction->failed = true;
        return NULL;
    }
    transaction_begin(transaction);
    return transaction_header(transaction, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags,
                              transaction->family, 0);
}

void nft_transaction_close(struct nft_transaction *transaction, const struct nlmsghdr *message)
{
    transaction_append(transaction, message);
    transaction->messages++;
}

/* Numbers the messages, asks for an ack of the last one and adds the batch's end. Returns the
 * sequence number of the batch's begin; the n-th message has the n-th after it. */
static uint32_t transaction_finish(struct nft_transaction *transaction, struct nft_socket *socket)
{
    uint32_t first = ++socket->sequence;
    struct nlmsghdr *last = (struct nlmsghdr *)(void *)transaction->data;

    for (size_t at = 0; at < transaction->length; at += MNL_ALIGN(last->nlmsg_len)) {
        last = (struct nlmsghdr *)(void *)(transaction->data + at);
        last->nlmsg_seq = at == 0 ? first : ++socket->sequence;
    }
    last->nlmsg_flags |= NLM_F_ACK;
    struct nlmsghdr *end =
        transaction_header(transaction, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    end->nlmsg_seq = ++socket->sequence;
    transaction_append(transaction, end);
    return first;
}

/* --- socket --- */

static void socket_configure(struct nft_socket *socket)
{
    int on = 1;
    int size = RECEIVE_BUFFER;
    int fd = mnl_socket_get_fd(socket->mnl);

    /* Better error texts and short errors: done without where a kernel lacks them. */
    mnl_socket_setsockopt(socket->mnl, NETLINK_EXT_ACK, &on, sizeof(on));
    mnl_socket_setsockopt(socket->mnl, NETLINK_CAP_ACK, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
}

int nft_socket_open(struct nft_socket **ret_socket, struct error *error)
{
    _cleanup_(nft_socket_closep) struct nft_socket *socket = calloc(1, sizeof(*socket));

    if (!socket)
        return error_set(error, ENOMEM, "cannot open a netfilter socket");
    socket->mnl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    if (!socket->mnl || mnl_socket_bind(socket->mnl, 0, MNL_SOCKET_AUTOPID) < 0)
        return error_set(error, errno, "cannot open a netfilter socket");
    socket->port = mnl_socket_get_portid(socket->mnl);
    socket_configure(socket);
    *ret_socket = TAKE_PTR(socket);
    return 0;
}

void nft_socket_close(struct nft_socket *socket)
{
    if (!socket)
        return;
    if (socket->mnl)
        mnl_socket_close(socket->mnl);
    free(socket);
}

uint32_t nft_socket_port(const struct nft_socket *socket)
{
    return socket->port;
}

void nft_socket_set_yielding(struct nft_socket *socket)
{
    socket->yields = true;
}

/* A datagram must fit the send buffer; SO_SNDBUFFORCE passes wmem_max. */
static void socket_grow(struct nft_socket *socket, size_t size)
{
    int wanted;

    if (size + 4096 <= socket->send_buffer || size > INT32_MAX / 4)
        return;
    wanted = (int)size * 2;
    if (setsockopt(mnl_socket_get_fd(socket->mnl), SOL_SOCKET, SO_SNDBUFFORCE, &wanted,
                   sizeof(wanted)) == 0)
        socket->send_buffer = (size_t)wanted;
}

/* Receives one datagram into socket->receive: its length, or a negative errno. */
static ssize_t socket_receive(struct nft_socket *socket, int flags)
{
    ssize_t length;

    do {
        length =
            recv(mnl_socket_get_fd(socket->mnl), socket->receive, sizeof(socket->receive), flags);
    } while (length < 0 && errno == EINTR);
    return length < 0 ? -errno : length;
}

/* The kernel's own words in an NLMSG_ERROR, or NULL. */
static const char *error_extack(const struct nlmsghdr *message)
{
    const struct nlmsgerr *answer = mnl_nlmsg_get_payload(message);
    size_t offset = sizeof(*answer);
    struct nlattr *attribute;

    if (!(message->nlmsg_flags & NLM_F_ACK_TLVS))
        return NULL;
    if (!(message->nlmsg_flags & NLM_F_CAPPED))
        offset += MNL_ALIGN(answer->msg.nlmsg_len - sizeof(answer->msg));
    mnl_attr_for_each(attribute, message,
                      (unsigned)offset) if (mnl_attr_get_type(attribute) == NLMSGERR_ATTR_MSG &&
                                            mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >=
                                                0) return mnl_attr_get_str(attribute);
    return NULL;
}

struct verdict {
    uint32_t first; /* sequence number of the batch's begin */
    uint32_t last;  /* of the message that asked for an ack */
    bool acked;
    int errnum; /* of the first refusal, 0 for none */
    uint32_t refused;
    char extack[128];
};

static void verdict_read(struct verdict *verdict, const struct nlmsghdr *message)
{
    const struct nlmsgerr *answer = mnl_nlmsg_get_payload(message);

    if (message->nlmsg_type != NLMSG_ERROR ||
        mnl_nlmsg_get_payload_len(message) < sizeof(*answer) ||
        message->nlmsg_seq - verdict->first > verdict->last - verdict->first + 1)
        return;
    if (answer->error == 0) {
        verdict->acked |= message->nlmsg_seq == verdict->last;
        return;
    }
    if (verdict->errnum)
        return;
    const char *extack = error_extack(message);
    verdict->errnum = -answer->error;
    verdict->refused = message->nlmsg_seq;
    if (extack)
        snprintf(verdict->extack, sizeof(verdict->extack), "%s", extack);
}

/* Empties the queue. Returns 0 or the negative errno of a receive that failed. */
static int verdict_receive(struct nft_socket *socket, struct verdict *verdict)
{
    int result = 0;

    for (;;) {
        ssize_t received = socket_receive(socket, MSG_DONTWAIT);

        if (received == -EAGAIN)
            return result;
        if (received == -ENOBUFS) { /* some answers were dropped: those that are there count */
            result = -ENOBUFS;
            continue;
        }
        if (received < 0)
            return (int)received;
        int left = (int)received;
        const struct nlmsghdr *message = (const void *)socket->receive;
        for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
            verdict_read(verdict, message);
    }
}

static int verdict_report(const struct verdict *verdict, int received,
                          const struct nft_transaction *transaction, struct error *error)
{
    uint32_t index = verdict->refused - verdict->first - 1;

    if (verdict->errnum == 0 && verdict->acked)
        return 0;
    if (verdict->errnum == 0)
        return error_set(error, received ? received : EIO, "nftables gave no verdict");
    if (verdict->errnum == EPERM && verdict->refused == verdict->first)
        return error_set_reason(error, REASON_PERMISSION_DENIED,
                                "changing nftables needs CAP_NET_ADMIN");
    return error_set_kernel(error, verdict->errnum, verdict->extack, "nftables refused %s",
                            index < transaction->messages ? transaction->labels[index]
                                                          : "the transaction");
}

int nft_socket_commit(struct nft_socket *socket, struct nft_transaction *transaction,
                      struct error *error)
{
    struct verdict verdict = {0};
    ssize_t sent;

    if (transaction->failed)
        return error_set(error, ENOMEM, "cannot prepare an nftables transaction");
    if (transaction->messages == 0)
        return 0;
    verdict.first = transaction_finish(transaction, socket);
    verdict.last = verdict.first + transaction->messages;
    socket_grow(socket, transaction->length);
    do {
        sent = mnl_socket_sendto(socket->mnl, transaction->data, transaction->length);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return error_set_kernel(error, errno, NULL, "cannot send an nftables transaction");
    int received = verdict_receive(socket, &verdict);
    return verdict_report(&verdict, received, transaction, error);
}

/* --- questions --- */

static int get_send(struct nft_socket *socket, uint8_t family, uint16_t type, bool dump,
                    nft_build_fn build, void *userdata, struct error *error)
{
    char buffer[DUMP_BUFFER_MIN] __attribute__((aligned(NLMSG_ALIGNTO)));
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    struct nfgenmsg *extra = mnl_nlmsg_put_extra_header(message, sizeof(*extra));

    message->nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
    message->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | (dump ? NLM_F_DUMP : 0));
    message->nlmsg_seq = ++socket->sequence;
    extra->nfgen_family = family;
    extra->version = NFNETLINK_V0;
    if (build)
        build(message, userdata);
    if (mnl_socket_sendto(socket->mnl, message, message->nlmsg_len) < 0)
        return error_set(error, errno, "cannot ask nftables");
    return 0;
}

/* 1: more to come; 0: that was the end; negative: errno. */
static int get_message(const struct nlmsghdr *message, nft_parse_fn parse, void *userdata,
                       bool *interrupted)
{
    int code = 0;

    if (message->nlmsg_flags & NLM_F_DUMP_INTR)
        *interrupted = true;
    switch (message->nlmsg_type) {
    case NLMSG_ERROR:
        return ((const struct nlmsgerr *)mnl_nlmsg_get_payload(message))->error;
    case NLMSG_DONE:
        if (mnl_nlmsg_get_payload_len(message) >= sizeof(code))
            memcpy(&code, mnl_nlmsg_get_payload(message), sizeof(code));
        return code < 0 ? code : 0;
    case NLMSG_NOOP:
        return 1;
    default:
        code = parse(message, userdata);
        return code < 0 ? code : 1;
    }
}

static int get_receive(struct nft_socket *socket, nft_parse_fn parse, void *userdata)
{
    bool interrupted = false;
    int result = 0; /* of parse: the rest is read all the same, so that nothing stays queued */

    for (;;) {
        ssize_t received = socket_receive(socket, 0);

        if (received < 0)
            return (int)received;
        int left = (int)received;
        const struct nlmsghdr *message = (const void *)socket->receive;
        for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
            if (message->nlmsg_seq != socket->sequence)
                continue;
            int code = get_message(message, parse, userdata, &interrupted);

            if (code <= 0 &&
                (message->nlmsg_type == NLMSG_ERROR || message->nlmsg_type == NLMSG_DONE))
                return code ? code : result ? result : interrupted ? -EINTR : 0;
            if (code < 0 && result == 0)
                result = code;
        }
        if (socket->yields)
            yield_if_due();
    }
}

int nft_socket_get(struct nft_socket *socket, uint8_t family, uint16_t type, bool dump,
                   nft_build_fn build, nft_parse_fn parse, void *userdata, struct error *error)
{
    int result = get_send(socket, family, type, dump, build, userdata, error);

    if (result < 0)
        return result;
    result = get_receive(socket, parse, userdata);
    if (result == 0 || result == -ENOENT || result == -EINTR)
        return result;
    return error_set_kernel(error, result, NULL, "cannot read nftables");
}
