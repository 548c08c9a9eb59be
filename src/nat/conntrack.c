/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connection tracking remembers translations for as long as packets flow, whatever the rules have
 * become: what leads to a guest or a port that is gone must be deleted, and nothing else.
 *
 * Walking the table takes milliseconds where it is large, so a thread does it: callers only queue.
 * All that was queued meanwhile is served by one walk. The thread's means, best first:
 *   - a few guests: one DELETE each per direction with CTA_FILTER (Linux 6.11 on; older ones refuse
 * it, they never take it for "everything"), for the families whose filter proved right at start;
 *   - one port: a dump that the kernel filters by protocol and port (CTA_FILTER, Linux 5.8 on);
 *   - else a dump of everything.
 * What a dump finds is deleted by its tuple and id: an entry that has come in its place meanwhile
 * stays. */
#include "nat/nat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/thread.h"
#include "nat/ctnetlink.h"
#include "nat/entry.h"
#include "nat/local.h"

#define DATAGRAM_MAX 65536
#define RECEIVE_BUFFER (2 * 1024 * 1024)
/* A DELETE by filter takes 0.3 ms in a table of 262,144 buckets and disturbs nobody. A dump takes
 * 6 ms with softirqs off, during which no RCU grace period ends: who makes or retires a link
 * meanwhile waits as long. So it is for very many guests only. */
#define FILTERED_GUESTS_MAX 64
/* Guests that must be looked for by a dump leave together, when they leave one after the other. */
#define DUMP_INTERVAL_MS 50
#define DELETE_ROOM 512    /* one DELETE: two tuples of IPv6 take 160 */
#define DELETE_CHUNK 32768 /* bytes of DELETEs in one datagram */

enum job_kind { JOB_GUEST, JOB_PORT, JOB_CUT };

struct job {
    enum job_kind kind;
    struct ip guest;
    struct nat_port port;
    conntrack_wants_fn wants;
    void *userdata;
    int *ret_result; /* of a cut: who queued it waits */
};

struct jobs {
    struct job *items;
    size_t count;
    size_t capacity;
};

struct conntrack {
    struct mnl_socket *tracking;
    struct local *local;
    uint32_t sequence;
    bool filter, filter6; /* this kernel deletes by CTA_FILTER, as far as is known */
    _Alignas(struct nlmsghdr) char receive[DATAGRAM_MAX];

    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct jobs queue;
    uint64_t dumped_ms; /* when the last dump for guests ended */
    unsigned waiting;   /* callers that wait for the queue's end */
    bool working;
    bool stop;
};

/* --- does a job mean an entry? --- */

/* The jobs of one walk, indexed: guests sorted, and which ports are wanted at all. */
struct wanted {
    const struct jobs *jobs;
    struct ip *guests;
    size_t n_guests;
    uint8_t ports[2][65536 / 8]; /* of TCP and of UDP */
};

static int guest_compare(const void *a, const void *b)
{
    return ip_compare(a, b);
}

static size_t port_table(uint8_t protocol)
{
    return protocol == IPPROTO_UDP;
}

static void wanted_add_port(struct wanted *wanted, const struct nat_port *port)
{
    for (uint32_t i = 0; i < port->count; i++) {
        uint16_t number = (uint16_t)(port->host_port + i);

        wanted->ports[port_table(port->protocol)][number / 8] |= (uint8_t)(1u << number % 8);
    }
}

static struct wanted *wanted_new(const struct jobs *jobs)
{
    struct wanted *wanted = calloc(1, sizeof(*wanted));

    if (!wanted)
        return NULL;
    wanted->jobs = jobs;
    wanted->guests = calloc(jobs->count + 1, sizeof(*wanted->guests));
    if (!wanted->guests) {
        free(wanted);
        return NULL;
    }
    for (size_t i = 0; i < jobs->count; i++) {
        if (jobs->items[i].kind == JOB_GUEST)
            wanted->guests[wanted->n_guests++] = jobs->items[i].guest;
        if (jobs->items[i].kind == JOB_PORT)
            wanted_add_port(wanted, &jobs->items[i].port);
    }
    qsort(wanted->guests, wanted->n_guests, sizeof(*wanted->guests), guest_compare);
    return wanted;
}

static void wanted_free(struct wanted *wanted)
{
    if (!wanted)
        return;
    free(wanted->guests);
    free(wanted);
}

static bool wanted_guest(const struct wanted *wanted, const struct ip *ip)
{
    return wanted->n_guests > 0 && bsearch(ip, wanted->guests, wanted->n_guests,
                                           sizeof(*wanted->guests), guest_compare) != NULL;
}

static bool port_covers(const struct nat_port *port, const struct entry *entry)
{
    const struct tuple *original = &entry->original;

    return port->protocol == original->protocol && original->destination_port >= port->host_port &&
           original->destination_port - port->host_port < port->count &&
           ip_bindings_overlap(&port->host_ip, &original->destination);
}

/* Translated: to this guest. Not translated: to the host itself. */
static bool port_means(struct conntrack *conntrack, const struct nat_port *port,
                       const struct entry *entry)
{
    if (!port_covers(port, entry))
        return false;
    if (entry->status & IPS_DST_NAT)
        return ip_equal(&port->guest_ip, &entry->reply.source) ||
               ip_equal(&port->guest_ip6, &entry->reply.source);
    return ip_equal(&entry->original.destination, &entry->reply.source) &&
           local_has(conntrack->local, &entry->original.destination);
}

static bool wanted_port(struct conntrack *conntrack, const struct wanted *wanted,
                        const struct entry *entry)
{
    uint8_t protocol = entry->original.protocol;
    uint16_t number = entry->original.destination_port;

    if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) ||
        !(wanted->ports[port_table(protocol)][number / 8] & 1u << number % 8))
        return false;
    for (size_t i = 0; i < wanted->jobs->count; i++)
        if (wanted->jobs->items[i].kind == JOB_PORT &&
            port_means(conntrack, &wanted->jobs->items[i].port, entry))
            return true;
    return false;
}

static bool wanted_cut(struct conntrack *conntrack, const struct wanted *wanted,
                       const struct entry *entry)
{
    const struct conntrack_flow flow = {
        .source = entry->original.source,
        .destination = entry->original.destination,
        .server = entry->reply.source,
        .protocol = entry->original.protocol,
        .source_port = entry->original.source_port,
        .port = entry->original.destination_port,
        .server_port = entry->reply.source_port,
        .published = entry->status & IPS_DST_NAT,
        .masqueraded = entry->status & IPS_SRC_NAT,
    };

    for (size_t i = 0; i < wanted->jobs->count; i++) {
        const struct job *job = &wanted->jobs->items[i];

        if (job->kind == JOB_CUT && job->wants(job->userdata, conntrack, &flow))
            return true;
    }
    return false;
}

static bool wanted_entry(struct conntrack *conntrack, const struct wanted *wanted,
                         const struct entry *entry)
{
    return wanted_guest(wanted, &entry->original.source) ||
           wanted_guest(wanted, &entry->reply.source) || wanted_port(conntrack, wanted, entry) ||
           wanted_cut(conntrack, wanted, entry);
}

/* --- deleting what was found --- */

struct deletes {
    char *data;
    size_t length;
    size_t capacity;
};

static struct nlmsghdr *message_put(struct conntrack *conntrack, char *buffer, uint16_t type,
                                    uint16_t flags, uint8_t family)
{
    return ctnetlink_put(buffer, type, flags, family, ++conntrack->sequence);
}

static void attribute_copy(struct nlmsghdr *message, const struct nlattr *attribute)
{
    if (attribute)
        mnl_attr_put(message, attribute->nla_type, mnl_attr_get_payload_len(attribute),
                     mnl_attr_get_payload(attribute));
}

static int deletes_add(struct conntrack *conntrack, struct deletes *deletes,
                       const struct entry *entry)
{
    if (!entry->original_raw || mnl_attr_get_payload_len(entry->original_raw) > DELETE_ROOM / 2)
        return 0;
    if (deletes->length + DELETE_ROOM > deletes->capacity) {
        size_t capacity = deletes->capacity ? deletes->capacity * 2 : DELETE_CHUNK;
        char *data = realloc(deletes->data, capacity);

        if (!data)
            return -ENOMEM;
        deletes->data = data;
        deletes->capacity = capacity;
    }
    struct nlmsghdr *message = message_put(conntrack, deletes->data + deletes->length,
                                           IPCTNL_MSG_CT_DELETE, 0, entry->original.source.family);
    attribute_copy(message, entry->original_raw);
    attribute_copy(message, entry->zone_raw);
    attribute_copy(message, entry->id_raw);
    deletes->length += MNL_ALIGN(message->nlmsg_len);
    return 0;
}

/* Whole messages that fit into one datagram. */
static size_t deletes_chunk(const struct deletes *deletes, size_t from)
{
    size_t at = from;

    while (at < deletes->length && at - from + DELETE_ROOM < DELETE_CHUNK)
        at += MNL_ALIGN(((const struct nlmsghdr *)(const void *)(deletes->data + at))->nlmsg_len);
    return at - from;
}

/* Entries that went by themselves answer ENOENT: nobody needs the answers. */
static void answers_drop(struct conntrack *conntrack)
{
    ssize_t length;

    do {
        length = recv(mnl_socket_get_fd(conntrack->tracking), conntrack->receive,
                      sizeof(conntrack->receive), MSG_DONTWAIT);
    } while (length >= 0 || errno == EINTR || errno == ENOBUFS);
}

static int deletes_send(struct conntrack *conntrack, const struct deletes *deletes)
{
    for (size_t at = 0; at < deletes->length;) {
        size_t chunk = deletes_chunk(deletes, at);

        if (mnl_socket_sendto(conntrack->tracking, deletes->data + at, chunk) < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        at += chunk;
        answers_drop(conntrack);
    }
    return 0;
}

/* --- by filter --- */

/* One direction of a guest. Returns the kernel's answer. */
static int guest_delete(struct conntrack *conntrack, const struct ip *guest, bool reply)
{
    char buffer[256] __attribute__((aligned(NLMSG_ALIGNTO)));
    struct nlmsghdr *message =
        message_put(conntrack, buffer, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, guest->family);

    ctnetlink_put_source(message, reply ? CTA_TUPLE_REPLY : CTA_TUPLE_ORIG, guest);
    ctnetlink_put_filter(message, reply ? 0 : CTNETLINK_IP_SRC, reply ? CTNETLINK_IP_SRC : 0);
    if (mnl_socket_sendto(conntrack->tracking, message, message->nlmsg_len) < 0)
        return -errno;
    for (;;) {
        ssize_t length = mnl_socket_recvfrom(conntrack->tracking, conntrack->receive,
                                             sizeof(conntrack->receive));
        const struct nlmsghdr *answer = (const void *)conntrack->receive;

        if (length < 0 && errno != EINTR)
            return -errno;
        if (length < 0 || !mnl_nlmsg_ok(answer, (int)length) ||
            answer->nlmsg_seq != conntrack->sequence)
            continue;
        return answer->nlmsg_type == NLMSG_ERROR
                   ? ((const struct nlmsgerr *)mnl_nlmsg_get_payload(answer))->error
                   : -EPROTO;
    }
}

static bool *filter_of(struct conntrack *conntrack, const struct job *job)
{
    return job->guest.family == AF_INET ? &conntrack->filter : &conntrack->filter6;
}

static bool job_is_filtered(struct conntrack *conntrack, const struct job *job)
{
    return job->kind == JOB_GUEST && *filter_of(conntrack, job);
}

/* False: it must be looked for by a dump, and so must all others of its family from now on. */
static bool job_delete(struct conntrack *conntrack, const struct job *job)
{
    int result = guest_delete(conntrack, &job->guest, false);

    if (result == 0)
        result = guest_delete(conntrack, &job->guest, true);
    if (result == 0 || result == -ENOENT)
        return true;
    *filter_of(conntrack, job) = false;
    return false;
}

/* Deletes guests by filter, where few enough of them can be, and takes them out of the jobs. */
static void guests_delete(struct conntrack *conntrack, struct jobs *jobs)
{
    size_t guests = 0;
    size_t kept = 0;

    for (size_t i = 0; i < jobs->count; i++)
        guests += job_is_filtered(conntrack, &jobs->items[i]);
    if (guests > FILTERED_GUESTS_MAX)
        return;
    for (size_t i = 0; i < jobs->count; i++)
        if (!job_is_filtered(conntrack, &jobs->items[i]) || !job_delete(conntrack, &jobs->items[i]))
            jobs->items[kept++] = jobs->items[i];
    jobs->count = kept;
}

/* --- dump --- */

static int dump_send(struct conntrack *conntrack, uint8_t family, const struct nat_port *only)
{
    char buffer[256] __attribute__((aligned(NLMSG_ALIGNTO)));
    struct nlmsghdr *message =
        message_put(conntrack, buffer, IPCTNL_MSG_CT_GET, NLM_F_DUMP, family);

    if (only) {
        ctnetlink_put_port(message, CTA_TUPLE_ORIG, only->protocol, only->host_port);
        ctnetlink_put_filter(message, CTNETLINK_PROTO_NUM | CTNETLINK_PROTO_DST_PORT, 0);
    }
    return mnl_socket_sendto(conntrack->tracking, message, message->nlmsg_len) < 0 ? -errno : 0;
}

/* 1: more to come; 0: that was the end; negative: errno. */
static int dump_message(struct conntrack *conntrack, const struct nlmsghdr *message,
                        const struct wanted *wanted, struct deletes *deletes)
{
    struct entry entry;

    if (message->nlmsg_type == NLMSG_DONE)
        return 0;
    if (message->nlmsg_type == NLMSG_ERROR) {
        int code = ((const struct nlmsgerr *)mnl_nlmsg_get_payload(message))->error;
        return code < 0 ? code : -EPROTO;
    }
    entry_read(message, &entry);
    if (wanted_entry(conntrack, wanted, &entry) && deletes_add(conntrack, deletes, &entry) < 0)
        return -ENOMEM;
    return 1;
}

static int dump_receive(struct conntrack *conntrack, const struct wanted *wanted,
                        struct deletes *deletes)
{
    uint32_t sequence = conntrack->sequence;

    for (;;) {
        ssize_t length = mnl_socket_recvfrom(conntrack->tracking, conntrack->receive,
                                             sizeof(conntrack->receive));
        int left = (int)length;
        const struct nlmsghdr *message = (const void *)conntrack->receive;

        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return -errno;
        for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
            if (message->nlmsg_seq != sequence)
                continue;
            int result = dump_message(conntrack, message, wanted, deletes);

            if (result <= 0)
                return result;
        }
    }
}

/* Of all that is looked for. */
static uint8_t jobs_family(const struct jobs *jobs)
{
    for (size_t i = 0; i < jobs->count; i++)
        if (jobs->items[i].kind != JOB_GUEST ||
            jobs->items[i].guest.family != jobs->items[0].guest.family)
            return AF_UNSPEC;
    return jobs->items[0].guest.family;
}

static int dump_once(struct conntrack *conntrack, const struct wanted *wanted,
                     const struct nat_port *only)
{
    struct deletes deletes = {0};
    int result = dump_send(conntrack, jobs_family(wanted->jobs), only);

    if (result == 0)
        result = dump_receive(conntrack, wanted, &deletes);
    answers_drop(conntrack);
    if (result == 0)
        result = deletes_send(conntrack, &deletes);
    free(deletes.data);
    return result;
}

static const struct nat_port *jobs_single_port(const struct jobs *jobs)
{
    const struct nat_port *port = jobs->count == 1 ? &jobs->items[0].port : NULL;

    return port && jobs->items[0].kind == JOB_PORT && port->count == 1 ? port : NULL;
}

static int jobs_dump(struct conntrack *conntrack, const struct jobs *jobs)
{
    const struct nat_port *only = jobs_single_port(jobs);
    struct wanted *wanted = wanted_new(jobs);
    int result;

    if (!wanted)
        return -ENOMEM;
    result = dump_once(conntrack, wanted, only);
    if (result < 0 && only)
        result = dump_once(conntrack, wanted, NULL);
    wanted_free(wanted);
    return result;
}

/* --- thread --- */

static void jobs_run(struct conntrack *conntrack, struct jobs *jobs)
{
    int result = 0;

    guests_delete(conntrack, jobs);
    if (jobs->count > 0)
        result = jobs_dump(conntrack, jobs);
    if (result < 0)
        log_warning("cannot flush connection tracking entries: %s", strerrordesc_np(-result));
    for (size_t i = 0; i < jobs->count; i++)
        if (jobs->items[i].kind == JOB_CUT)
            *jobs->items[i].ret_result = result;
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Only guests, and not all of them by filter. */
static bool jobs_can_wait(struct conntrack *conntrack, const struct jobs *jobs)
{
    bool dumps = false;

    for (size_t i = 0; i < jobs->count; i++) {
        if (jobs->items[i].kind != JOB_GUEST)
            return false;
        dumps = dumps || !job_is_filtered(conntrack, &jobs->items[i]);
    }
    return dumps;
}

/* With the lock held. */
static void dump_await(struct conntrack *conntrack)
{
    uint64_t due_ms = conntrack->dumped_ms + DUMP_INTERVAL_MS;
    struct timespec due = {.tv_sec = (time_t)(due_ms / 1000),
                           .tv_nsec = (long)(due_ms % 1000) * 1000000};

    while (!conntrack->stop && conntrack->waiting == 0 && now_ms() < due_ms &&
           jobs_can_wait(conntrack, &conntrack->queue))
        pthread_cond_timedwait(&conntrack->changed, &conntrack->lock, &due);
}

static void *thread_run(void *userdata)
{
    struct conntrack *conntrack = userdata;

    conntrack->filter = ctnetlink_filter_works(AF_INET);
    conntrack->filter6 = ctnetlink_filter_works(AF_INET6);
    pthread_mutex_lock(&conntrack->lock);
    for (;;) {
        while (conntrack->queue.count == 0 && !conntrack->stop)
            pthread_cond_wait(&conntrack->changed, &conntrack->lock);
        if (conntrack->queue.count == 0)
            break;
        dump_await(conntrack);
        struct jobs jobs = conntrack->queue;
        conntrack->queue = (struct jobs){0};
        conntrack->working = true;
        pthread_mutex_unlock(&conntrack->lock);
        bool dumps = jobs_can_wait(conntrack, &jobs);
        jobs_run(conntrack, &jobs);
        free(jobs.items);
        pthread_mutex_lock(&conntrack->lock);
        if (dumps)
            conntrack->dumped_ms = now_ms();
        conntrack->working = false;
        pthread_cond_broadcast(&conntrack->changed);
    }
    pthread_mutex_unlock(&conntrack->lock);
    return NULL;
}

static int run_beside(struct conntrack *conntrack)
{
    int result = thread_start(&conntrack->thread, thread_run, conntrack);

    conntrack->started = result == 0;
    return result;
}

/* --- public --- */

DEFINE_CLEANUP(struct conntrack, conntrack_close)

static int sockets_open(struct conntrack *conntrack)
{
    int size = RECEIVE_BUFFER;

    conntrack->tracking = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    if (!conntrack->tracking || mnl_socket_bind(conntrack->tracking, 0, MNL_SOCKET_AUTOPID) < 0)
        return -errno;
    setsockopt(mnl_socket_get_fd(conntrack->tracking), SOL_SOCKET, SO_RCVBUFFORCE, &size,
               sizeof(size));
    return local_open(&conntrack->local);
}

int conntrack_open(struct conntrack **ret_conntrack, struct error *error)
{
    _cleanup_(conntrack_closep) struct conntrack *conntrack = calloc(1, sizeof(*conntrack));
    pthread_condattr_t monotonic;

    if (!conntrack)
        return error_set(error, ENOMEM, "cannot open connection tracking");
    pthread_mutex_init(&conntrack->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&conntrack->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int result = sockets_open(conntrack);
    if (result == 0)
        result = run_beside(conntrack);
    if (result < 0)
        return error_set(error, result, "cannot open connection tracking");
    *ret_conntrack = TAKE_PTR(conntrack);
    return 0;
}

void conntrack_close(struct conntrack *conntrack)
{
    if (!conntrack)
        return;
    if (conntrack->started) {
        pthread_mutex_lock(&conntrack->lock);
        conntrack->stop = true;
        pthread_cond_broadcast(&conntrack->changed);
        pthread_mutex_unlock(&conntrack->lock);
        pthread_join(conntrack->thread, NULL);
    }
    if (conntrack->tracking)
        mnl_socket_close(conntrack->tracking);
    local_close(conntrack->local);
    pthread_cond_destroy(&conntrack->changed);
    pthread_mutex_destroy(&conntrack->lock);
    free(conntrack->queue.items);
    free(conntrack);
}

static bool jobs_push(struct jobs *jobs, const struct job *job)
{
    if (jobs->count == jobs->capacity) {
        size_t capacity = jobs->capacity ? jobs->capacity * 2 : 8;
        struct job *items = realloc(jobs->items, capacity * sizeof(*items));

        if (!items)
            return false;
        jobs->items = items;
        jobs->capacity = capacity;
    }
    jobs->items[jobs->count++] = *job;
    return true;
}

static bool job_queue(struct conntrack *conntrack, const struct job *job)
{
    pthread_mutex_lock(&conntrack->lock);
    bool pushed = jobs_push(&conntrack->queue, job);
    pthread_cond_broadcast(&conntrack->changed);
    pthread_mutex_unlock(&conntrack->lock);
    if (!pushed)
        log_warning("cannot flush connection tracking entries: out of memory");
    return pushed;
}

void conntrack_flush_guest(struct conntrack *conntrack, const struct ip *guest_ip)
{
    const struct job job = {.kind = JOB_GUEST, .guest = *guest_ip};

    if (ip_is_set(guest_ip))
        (void)job_queue(conntrack, &job);
}

void conntrack_flush_port(struct conntrack *conntrack, const struct nat_port *port)
{
    const struct job job = {.kind = JOB_PORT, .port = *port};

    (void)job_queue(conntrack, &job);
}

int conntrack_cut(struct conntrack *conntrack, conntrack_wants_fn wants, void *userdata,
                  struct error *error)
{
    int result = fault_point("conntrack.cut", error);
    const struct job job = {
        .kind = JOB_CUT, .wants = wants, .userdata = userdata, .ret_result = &result};

    if (result < 0)
        return result;
    result = -ENOMEM;
    if (job_queue(conntrack, &job))
        conntrack_wait(conntrack);
    return result < 0 ? error_set(error, result, "cannot end connections") : 0;
}

bool conntrack_address_is_local(struct conntrack *conntrack, const struct ip *ip)
{
    return local_has(conntrack->local, ip);
}

void conntrack_wait(struct conntrack *conntrack)
{
    pthread_mutex_lock(&conntrack->lock);
    conntrack->waiting++;
    pthread_cond_broadcast(&conntrack->changed);
    while (conntrack->queue.count > 0 || conntrack->working)
        pthread_cond_wait(&conntrack->changed, &conntrack->lock);
    conntrack->waiting--;
    pthread_mutex_unlock(&conntrack->lock);
}
