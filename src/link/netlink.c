/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel handles a request inside sendmsg(2): when that returns, all answers are in the
 * socket's queue. So nothing here ever waits in recvmsg(2); an answer that is missing was lost.
 * Only the last message of a request asks for an ack: a message that fails is answered anyway.
 *
 * Inside a guest's namespace its root may send netlink messages to our socket. Answers are taken
 * from port 0, the kernel, only. */
#include "netlink.h"

#include <assert.h>
#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "netns.h"

#define DUMP_TRIES 16
#define DUMP_BUFFER_SIZE 65536

/* ------------------------------------------------------------------------------- sockets */
static int netlink_set(int fd, int option)
{
    int on = 1;

    return setsockopt(fd, SOL_NETLINK, option, &on, sizeof(on));
}

/* No error text: the caller may be in another namespace at this moment. */
static int netlink_socket(struct netlink *ret_netlink)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    socklen_t length = sizeof(address);
    _cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return -errno;
    if (netlink_set(fd, NETLINK_EXT_ACK) < 0 || netlink_set(fd, NETLINK_CAP_ACK) < 0 ||
        netlink_set(fd, NETLINK_GET_STRICT_CHK) < 0)
        return -errno;
    *ret_netlink = (struct netlink){.fd = TAKE_FD(fd), .port = address.nl_pid, .sequence = 1};
    return 0;
}

int netlink_open(struct netlink *ret_netlink, struct error *error)
{
    int r = netlink_socket(ret_netlink);

    return r < 0 ? error_set(error, r, "cannot open an rtnetlink socket") : 0;
}

int netlink_open_in(int netns_fd, int home_fd, struct netlink *ret_netlink, struct error *error)
{
    int r = netns_enter(netns_fd, error);

    if (r < 0)
        return r;
    r = netlink_socket(ret_netlink);
    netns_return(home_fd);
    return r < 0 ? error_set(error, r, "cannot open an rtnetlink socket in the guest's namespace")
                 : 0;
}

void netlink_close(struct netlink *netlink)
{
    if (netlink->fd >= 0)
        close(netlink->fd);
    netlink->fd = -1;
}

static int netlink_transmit(struct netlink *netlink, const struct request *request)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    ssize_t sent;

    do
        sent = sendto(netlink->fd, request->buffer, request->used, 0, (struct sockaddr *)&kernel,
                      sizeof(kernel));
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return -errno;
    return (size_t)sent == request->used ? 0 : -EIO;
}

/* One datagram of the kernel's: its length, or -errno. */
static ssize_t netlink_receive(const struct netlink *netlink, char *buffer, size_t size)
{
    struct sockaddr_nl sender;
    struct iovec data = {.iov_base = buffer, .iov_len = size};
    ssize_t length;
    bool wanted;

    do {
        struct msghdr message = {
            .msg_name = &sender, .msg_namelen = sizeof(sender), .msg_iov = &data, .msg_iovlen = 1};

        length = recvmsg(netlink->fd, &message, MSG_DONTWAIT);
        if (length < 0 && errno != EINTR)
            return errno == EAGAIN ? -ENOBUFS : -errno;
        if (length >= 0 && message.msg_flags & MSG_TRUNC)
            return -EMSGSIZE;
        wanted = length >= 0 && message.msg_namelen == sizeof(sender) && sender.nl_pid == 0;
    } while (!wanted);
    return length;
}

/* ------------------------------------------------------------------------------- requests */
void request_init(struct request *request)
{
    request->used = 0;
    request->count = 0;
    request->open = false;
}

static struct nlmsghdr *request_message(struct request *request, size_t offset)
{
    return (struct nlmsghdr *)(void *)(request->buffer + offset);
}

/* Counts the message begun last in: attributes were put since. */
static void request_close_message(struct request *request)
{
    if (!request->open)
        return;
    uint32_t length = request_message(request, request->used)->nlmsg_len;
    assert(length <= REQUEST_MESSAGE_MAX);
    request->used += MNL_ALIGN(length);
    request->open = false;
}

struct nlmsghdr *request_add(struct request *request, uint16_t type, uint16_t flags,
                             size_t extra_size, void **ret_extra, const char *what)
{
    assert(request->count < REQUEST_STEPS_MAX);
    request_close_message(request);
    struct nlmsghdr *message = mnl_nlmsg_put_header(request->buffer + request->used);
    message->nlmsg_type = type;
    message->nlmsg_flags = (uint16_t)(flags | NLM_F_REQUEST);
    *ret_extra = mnl_nlmsg_put_extra_header(message, extra_size);
    request->steps[request->count++] = (struct request_step){.what = what};
    request->open = true;
    return message;
}

void request_tolerate(struct request *request, int errnum)
{
    struct request_step *step = &request->steps[request->count - 1];
    unsigned i = 0;

    while (step->tolerated[i] != 0)
        i++;
    assert(i + 1 < REQUEST_TOLERATED_MAX);
    step->tolerated[i] = errnum;
}

static bool step_tolerates(const struct request_step *step, int errnum)
{
    for (unsigned i = 0; i < REQUEST_TOLERATED_MAX; i++)
        if (step->tolerated[i] == errnum)
            return true;
    return false;
}

/* Numbers the messages and asks for one ack, the last one's. Returns the first number. */
static uint32_t request_seal(struct netlink *netlink, struct request *request)
{
    uint32_t first = netlink->sequence;
    size_t offset = 0;

    request_close_message(request);
    for (unsigned i = 0; i < request->count; i++) {
        struct nlmsghdr *message = request_message(request, offset);

        message->nlmsg_seq = netlink->sequence++;
        if (i + 1 == request->count)
            message->nlmsg_flags |= NLM_F_ACK;
        offset += MNL_ALIGN(message->nlmsg_len);
    }
    return first;
}

/* Takes one answer in. Returns true with the last message's. */
static bool answer_take(const struct nlmsghdr *message, const struct request *request,
                        uint32_t first, int *result, struct netlink_failure *failure)
{
    uint32_t step = message->nlmsg_seq - first;
    char extack[NETLINK_EXTACK_MAX];

    if (message->nlmsg_type != NLMSG_ERROR || step >= request->count)
        return false;
    int errnum = netlink_parse_error(message, extack);
    if (errnum != 0 && *result == 0 && !step_tolerates(&request->steps[step], errnum)) {
        *result = -errnum;
        *failure = (struct netlink_failure){.step = step, .what = request->steps[step].what};
        memcpy(failure->extack, extack, sizeof(extack));
    }
    return step + 1 == request->count;
}

int netlink_send(struct netlink *netlink, struct request *request,
                 struct netlink_failure *ret_failure)
{
    struct netlink_reply reply;
    bool done = request->count == 0;
    int result = 0;

    if (done)
        return 0;
    uint32_t first = request_seal(netlink, request);
    *ret_failure = (struct netlink_failure){.what = request->steps[0].what};
    int r = netlink_transmit(netlink, request);
    if (r < 0)
        return r;
    while (!done) {
        ssize_t length = netlink_receive(netlink, reply.buffer, sizeof(reply.buffer));
        const struct nlmsghdr *message = (const struct nlmsghdr *)(void *)reply.buffer;
        int left = (int)length;

        if (length < 0)
            return (int)length;
        for (; !done && mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
            done = answer_take(message, request, first, &result, ret_failure);
    }
    return result;
}

int netlink_commit(struct netlink *netlink, struct request *request, const char *object,
                   struct error *error)
{
    struct netlink_failure failure;
    int r = netlink_send(netlink, request, &failure);

    if (r < 0)
        return error_set_kernel(error, r, failure.extack, "cannot %s %s", failure.what, object);
    return 0;
}

int netlink_get(struct netlink *netlink, struct request *request, struct netlink_reply *reply,
                const struct nlmsghdr **ret_message)
{
    const struct nlmsghdr *message = (const struct nlmsghdr *)(void *)reply->buffer;
    char extack[NETLINK_EXTACK_MAX];

    assert(request->count == 1);
    request_close_message(request);
    uint32_t sequence = netlink->sequence++;
    request_message(request, 0)->nlmsg_seq = sequence;
    int r = netlink_transmit(netlink, request);
    if (r < 0)
        return r;
    do {
        ssize_t length = netlink_receive(netlink, reply->buffer, sizeof(reply->buffer));

        if (length < 0)
            return (int)length;
        if (!mnl_nlmsg_ok(message, (int)length))
            return -EBADMSG;
    } while (message->nlmsg_seq != sequence);
    if (message->nlmsg_type == NLMSG_ERROR) {
        r = netlink_parse_error(message, extack);
        return r ? -r : -EBADMSG;
    }
    *ret_message = message;
    return 0;
}

/* ------------------------------------------------------------------------------- dumps */
struct dump {
    uint32_t sequence;
    netlink_dump_fn fn;
    void *userdata;
    bool done;
    bool interrupted;
    int result;
};

/* Once fn has failed, what is left is only drained. */
static void dump_take(struct dump *dump, const struct nlmsghdr *message)
{
    char extack[NETLINK_EXTACK_MAX];

    if (message->nlmsg_seq != dump->sequence)
        return;
    if (message->nlmsg_flags & NLM_F_DUMP_INTR)
        dump->interrupted = true;
    if (message->nlmsg_type == NLMSG_DONE) {
        int32_t status = 0;

        dump->done = true;
        if (mnl_nlmsg_get_payload_len(message) >= sizeof(status))
            memcpy(&status, mnl_nlmsg_get_payload(message), sizeof(status));
        if (status < 0 && dump->result == 0)
            dump->result = status;
    } else if (message->nlmsg_type == NLMSG_ERROR) {
        int errnum = netlink_parse_error(message, extack);

        dump->done = true;
        if (dump->result == 0)
            dump->result = -errnum;
    } else if (dump->result == 0 && message->nlmsg_type >= NLMSG_MIN_TYPE) {
        dump->result = dump->fn(message, dump->userdata);
    }
}

static int dump_once(struct netlink *netlink, struct request *request, struct dump *dump,
                     char *buffer)
{
    struct nlmsghdr *header = request_message(request, 0);

    header->nlmsg_seq = dump->sequence = netlink->sequence++;
    header->nlmsg_flags |= NLM_F_DUMP;
    dump->done = dump->interrupted = false;
    dump->result = 0;
    int r = netlink_transmit(netlink, request);
    if (r < 0)
        return r;
    while (!dump->done) {
        ssize_t length = netlink_receive(netlink, buffer, DUMP_BUFFER_SIZE);
        const struct nlmsghdr *message = (const struct nlmsghdr *)(void *)buffer;
        int left = (int)length;

        if (length < 0)
            return (int)length;
        for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
            dump_take(dump, message);
    }
    return dump->result;
}

int netlink_dump(struct netlink *netlink, struct request *request, netlink_dump_fn fn,
                 void *userdata)
{
    struct dump dump = {.fn = fn, .userdata = userdata};
    _cleanup_free_ char *buffer = malloc(DUMP_BUFFER_SIZE);

    assert(request->count == 1);
    if (!buffer)
        return -ENOMEM;
    request_close_message(request);
    for (unsigned try = 0; try < DUMP_TRIES; try++) {
        int r = dump_once(netlink, request, &dump, buffer);

        if (r < 0)
            return r;
        if (!dump.interrupted)
            return 0;
        r = fn(NULL, userdata);
        if (r < 0)
            return r;
    }
    return -EINTR;
}

/* ------------------------------------------------------------------------------- parsing */
int netlink_parse_error(const struct nlmsghdr *message, char ret_extack[NETLINK_EXTACK_MAX])
{
    const struct nlattr *table[NLMSGERR_ATTR_MAX + 1];
    size_t payload = mnl_nlmsg_get_payload_len(message);
    const struct nlmsgerr *answer = mnl_nlmsg_get_payload(message);
    size_t skip = sizeof(*answer);

    ret_extack[0] = '\0';
    if (payload < sizeof(*answer))
        return EBADMSG;
    if (!(message->nlmsg_flags & NLM_F_ACK_TLVS))
        return -answer->error;
    /* Without NLM_F_CAPPED the whole request stands between the code and the attributes. */
    if (!(message->nlmsg_flags & NLM_F_CAPPED)) {
        if (answer->msg.nlmsg_len < sizeof(answer->msg) || answer->msg.nlmsg_len > payload)
            return -answer->error;
        skip = sizeof(answer->error) + MNL_ALIGN(answer->msg.nlmsg_len);
    }
    if (skip > payload)
        return -answer->error;
    netlink_parse_attributes((const char *)answer + skip, payload - skip, table, NLMSGERR_ATTR_MAX);
    attribute_text(table[NLMSGERR_ATTR_MSG], ret_extack, NETLINK_EXTACK_MAX);
    return -answer->error;
}

void netlink_parse_attributes(const void *first, size_t length, const struct nlattr **table,
                              uint16_t max)
{
    const struct nlattr *attribute = first;
    int left = (int)length;

    for (uint16_t i = 0; i <= max; i++)
        table[i] = NULL;
    while (mnl_attr_ok(attribute, left)) {
        uint16_t type = mnl_attr_get_type(attribute);

        if (type <= max)
            table[type] = attribute;
        left -= (int)MNL_ALIGN(attribute->nla_len);
        attribute = mnl_attr_next(attribute);
    }
}

void netlink_parse_message(const struct nlmsghdr *message, size_t header_size,
                           const struct nlattr **table, uint16_t max)
{
    size_t payload = mnl_nlmsg_get_payload_len(message);
    size_t skip = MNL_ALIGN(header_size);
    const char *start = mnl_nlmsg_get_payload(message);

    netlink_parse_attributes(start + skip, payload > skip ? payload - skip : 0, table, max);
}

uint32_t attribute_u32(const struct nlattr *attribute)
{
    uint32_t value = 0;

    if (attribute && mnl_attr_get_payload_len(attribute) >= sizeof(value))
        memcpy(&value, mnl_attr_get_payload(attribute), sizeof(value));
    return value;
}

uint8_t attribute_u8(const struct nlattr *attribute)
{
    uint8_t value = 0;

    if (attribute && mnl_attr_get_payload_len(attribute) >= sizeof(value))
        memcpy(&value, mnl_attr_get_payload(attribute), sizeof(value));
    return value;
}

void attribute_text(const struct nlattr *attribute, char *ret_text, size_t size)
{
    size_t length = attribute ? mnl_attr_get_payload_len(attribute) : 0;

    if (length > size - 1)
        length = size - 1;
    if (length > 0)
        memcpy(ret_text, mnl_attr_get_payload(attribute), length);
    ret_text[length] = '\0';
}
