/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An entry is one published port or range: its sockets, and where the relay leads them. The relay
 * is told of sockets in messages of WORKER_FDS_MAX; a fresh one is told everything (relay_started).
 * Entries are known to the relay by what they are bound to, so renaming one concerns nobody else.
 */
#include "nat/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/spread.h"
#include "base/yield.h"
#include "nat/closer.h"
#include "nat/reserve_socket.h"
#include "worker/holder.h"
#include "worker/relay_message.h"
#include "worker/supervisor.h"

#define BUCKETS 4096
#define PORTS 65536
#define RELEASE_TIMEOUT_MS 200
#define ANSWER_TIMEOUT_MS 100
#define DESCRIPTORS_PREPARED 16384
#define SPREAD_WORTH 256 /* so many ports are bound before another thread has begun */
#define CLOSE_MAX 256    /* so many are closed at once, more by the closer */

struct entry {
    struct entry *next; /* in the bucket */
    int64_t id;
    struct ip wanted; /* absent: every address */
    struct ip bound;  /* what the sockets are bound to: never absent */
    uint8_t protocol;
    uint16_t first;
    uint16_t guest_port;
    uint32_t count;
    struct ip guest_ip; /* IPv4, or absent: not relayed */
    int fds[];
};

struct reservations {
    struct worker *relay;
    struct closer *closer;
    reserve_released_fn on_released;
    void *userdata;
    uint64_t released; /* the sync of the last release */
    bool has_ipv6;
    struct entry *buckets[BUCKETS];
};

/* ---------------------------------------------------------------- entries */

static struct entry **bucket_of(struct reservations *reservations, int64_t id)
{
    return &reservations->buckets[(uint64_t)id % BUCKETS];
}

static struct entry *entry_find(struct reservations *reservations, int64_t id)
{
    struct entry *entry = *bucket_of(reservations, id);

    while (entry && entry->id != id)
        entry = entry->next;
    return entry;
}

static void entry_add(struct reservations *reservations, struct entry *entry)
{
    struct entry **bucket = bucket_of(reservations, entry->id);

    entry->next = *bucket;
    *bucket = entry;
}

static void entry_remove(struct reservations *reservations, struct entry *entry)
{
    struct entry **link = bucket_of(reservations, entry->id);

    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
}

static void entry_free(struct entry *entry)
{
    if (!entry)
        return;
    closer_close(entry->fds, entry->count);
    free(entry);
}

DEFINE_CLEANUP(struct entry, entry_free)

/* "Every address" is [::], dual-stack, or 0.0.0.0 on a host without IPv6. */
static struct ip address_bound(const struct reservations *reservations, const struct ip *host_ip)
{
    struct ip any = {.family = reservations->has_ipv6 ? AF_INET6 : AF_INET};

    return ip_is_set(host_ip) ? *host_ip : any;
}

static struct entry *entry_new(const struct reservations *reservations, const struct port *port)
{
    uint32_t count = port->count ? port->count : 1;
    struct entry *entry = calloc(1, sizeof(*entry) + count * sizeof(entry->fds[0]));

    if (!entry)
        return NULL;
    entry->id = port->id;
    entry->wanted = port->host_ip;
    entry->bound = address_bound(reservations, &port->host_ip);
    entry->protocol = port->protocol;
    entry->first = port->host_port;
    entry->guest_port = port->guest_port;
    entry->count = count;
    for (uint32_t i = 0; i < count; i++)
        entry->fds[i] = -1;
    return entry;
}

/* ---------------------------------------------------------------- relay */

static struct relay_range entry_range(const struct entry *entry, uint32_t from, uint32_t count)
{
    struct relay_range range = {.first = {.protocol = entry->protocol,
                                          .family = entry->bound.family,
                                          .port = (uint16_t)(entry->first + from)},
                                .count = count};

    memcpy(range.first.address, entry->bound.bytes, sizeof(range.first.address));
    return range;
}

static int entry_send_sockets(struct reservations *reservations, const struct entry *entry,
                              struct error *error)
{
    for (uint32_t from = 0; from < entry->count; from += WORKER_FDS_MAX) {
        uint32_t left = entry->count - from;
        uint32_t count = left < WORKER_FDS_MAX ? left : WORKER_FDS_MAX;
        struct relay_range range = entry_range(entry, from, count);
        int code = worker_send(reservations->relay, RELAY_SOCKETS, &range, sizeof(range),
                               entry->fds + from, count, error);

        if (code < 0)
            return code;
        yield_if_due();
    }
    return 0;
}

static int entry_send_target(struct reservations *reservations, const struct entry *entry,
                             struct error *error)
{
    struct relay_target target = {.range = entry_range(entry, 0, entry->count),
                                  .guest_ip = entry->guest_ip,
                                  .guest_port = entry->guest_port};

    if (entry->bound.family != AF_INET6)
        return 0;
    return worker_send(reservations->relay, RELAY_TARGET, &target, sizeof(target), NULL, 0, error);
}

/* Ends the entry here, in the relay and in those that drain. */
static void entry_release(struct reservations *reservations, struct entry *entry)
{
    struct relay_range range = entry_range(entry, 0, entry->count);

    worker_tell(reservations->relay, RELAY_RELEASE, &range, sizeof(range));
    worker_send_draining(reservations->relay, RELAY_RELEASE, &range, sizeof(range));
    if (entry->count <= CLOSE_MAX)
        closer_close(entry->fds, entry->count);
    reservations->released = worker_sync_begin(reservations->relay);
    if (entry->count <= CLOSE_MAX)
        return;
    closer_add(reservations->closer, entry->fds, entry->count, reservations->released);
}

static void relay_started(void *userdata)
{
    struct reservations *reservations = userdata;
    struct error error = ERROR_INIT;

    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct entry *entry = reservations->buckets[i]; entry; entry = entry->next) {
            if (entry_send_sockets(reservations, entry, &error) < 0 ||
                (ip_is_set(&entry->guest_ip) && entry_send_target(reservations, entry, &error) < 0))
                log_error("port %u is not relayed: %s", entry->first, error.text);
        }
    }
}

static void relay_said(void *userdata, uint16_t type, const void *payload, size_t length)
{
    (void)userdata;
    (void)payload;
    log_debug("ignored a message of the relay: type %u, %zu bytes", type, length);
}

static bool relay_has_released(void *userdata, uint64_t release)
{
    return reserve_is_released(userdata, release);
}

static void ports_closed(void *userdata)
{
    struct reservations *reservations = userdata;

    if (reservations->on_released)
        reservations->on_released(reservations->userdata);
}

static void relay_synced(void *userdata)
{
    struct reservations *reservations = userdata;

    closer_look(reservations->closer);
    if (reservations->on_released)
        reservations->on_released(reservations->userdata);
}

static const struct worker_ops relay_ops = {
    .started = relay_started, .message = relay_said, .synced = relay_synced};

/* ---------------------------------------------------------------- binding */

struct binding {
    struct entry *entry;
    bool boot;
};

static int bind_one(void *userdata, uint32_t index)
{
    const struct binding *binding = userdata;
    struct entry *entry = binding->entry;

    if (entry->fds[index] >= 0)
        return 0;
    return reserve_socket_open(entry->protocol, &entry->bound, !ip_is_set(&entry->wanted),
                               (uint16_t)(entry->first + index), binding->boot, &entry->fds[index]);
}

/* Binds what the entry wants. On failure its fds are as far as they came, and *ret_port is the
 * first one that failed. */
static int entry_bind(struct reservations *reservations, struct entry *entry, bool boot,
                      uint16_t *ret_port)
{
    struct binding binding = {.entry = entry, .boot = boot};
    uint32_t failed = 0;
    int code;

    for (uint32_t i = 0; i < entry->count; i++)
        entry->fds[i] = worker_inherited_take(reservations->relay, entry->protocol, &entry->bound,
                                              (uint16_t)(entry->first + i));
    code = spread(entry->count, SPREAD_WORTH, bind_one, &binding, &failed);
    *ret_port = (uint16_t)(entry->first + failed);
    return code;
}

/* "8080/tcp", "192.0.2.1:8080/tcp", "[2001:db8::1]:53/udp" */
static const char *port_text(const struct entry *entry, uint16_t host_port,
                             char text[PORT_TEXT_MAX])
{
    const char *protocol = entry->protocol == IPPROTO_UDP ? "udp" : "tcp";
    char address[IP_TEXT_MAX];

    ip_format(&entry->bound, address);
    if (!ip_is_set(&entry->wanted))
        snprintf(text, PORT_TEXT_MAX, "%u/%s", host_port, protocol);
    else
        snprintf(text, PORT_TEXT_MAX, entry->bound.family == AF_INET6 ? "[%s]:%u/%s" : "%s:%u/%s",
                 address, host_port, protocol);
    return text;
}

static bool entry_overlaps(const struct entry *entry, const struct entry *other, uint16_t port)
{
    return entry->protocol == other->protocol && port >= entry->first &&
           port < entry->first + entry->count &&
           ip_bindings_overlap(&entry->wanted, &other->wanted);
}

static bool port_is_ours(const struct reservations *reservations, const struct entry *wanted,
                         uint16_t port)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct entry *entry = reservations->buckets[i]; entry; entry = entry->next) {
            if (entry_overlaps(entry, wanted, port))
                return true;
        }
    }
    return false;
}

static int error_in_use(const struct reservations *reservations, const struct entry *entry,
                        uint16_t port, struct error *error)
{
    struct port_holder holder;
    char text[PORT_TEXT_MAX];

    port_text(entry, port, text);
    if (port_is_ours(reservations, entry, port))
        return error_set_reason(error, REASON_PORT_IN_USE,
                                "port %s is published already; give another host port", text);
    if (port_holder_find(entry->protocol, &entry->bound, port, &holder))
        return error_set_reason(
            error, REASON_PORT_IN_USE,
            "port %s is taken by %s (pid %d); give another host port or stop it", text,
            holder.program, (int)holder.pid);
    return error_set_reason(
        error, REASON_PORT_IN_USE,
        "port %s is taken by another program of the host; give another host port", text);
}

static int error_quota(const struct entry *entry, int code, struct error *error)
{
    struct rlimit limit = {0};

    getrlimit(RLIMIT_NOFILE, &limit);
    if (code == -EMFILE)
        return error_set_reason(
            error, REASON_QUOTA,
            "%u ports need %u descriptors more than moatd's limit of %llu has left; "
            "raise LimitNOFILE= of moatd or publish fewer",
            entry->count, entry->count, (unsigned long long)limit.rlim_cur);
    return error_set_reason(error, REASON_QUOTA, "%u ports can't be reserved: %s", entry->count,
                            strerror(-code));
}

static int error_bind(const struct reservations *reservations, const struct entry *entry,
                      uint16_t port, int code, struct error *error)
{
    char address[IP_TEXT_MAX];
    char text[PORT_TEXT_MAX];

    switch (code) {
    case -EADDRINUSE:
        return error_in_use(reservations, entry, port, error);
    case -EADDRNOTAVAIL:
    case -EAFNOSUPPORT:
    case -EINVAL:
        return error_set_reason(error, REASON_ADDRESS_OUTSIDE,
                                "%s is no address of this host that a port can be published on",
                                ip_format(&entry->bound, address));
    case -EACCES:
    case -EPERM:
        return error_set_reason(error, REASON_PERMISSION_DENIED, "moatd may not bind port %s",
                                port_text(entry, port, text));
    case -EMFILE:
    case -ENFILE:
    case -ENOBUFS:
    case -ENOMEM:
        return error_quota(entry, code, error);
    default:
        return error_set(error, code, "cannot reserve port %s", port_text(entry, port, text));
    }
}

/* Bound: from now on the entry is one of ours, and the relay's. */
static int entry_commit(struct reservations *reservations, struct entry *entry, struct error *error)
{
    int code = entry_send_sockets(reservations, entry, error);

    if (code < 0) {
        entry_release(reservations, entry);
        return code;
    }
    entry_add(reservations, entry);
    return 0;
}

/* The descriptors of long ranges that are being closed may be those that are needed. */
static void entry_prepare(struct reservations *reservations, const struct entry *entry)
{
    if (entry->count > CLOSE_MAX)
        closer_wait(reservations->closer, closer_added(reservations->closer), RELEASE_TIMEOUT_MS);
    reserve_socket_prepare(entry->count);
}

int reserve_port(struct reservations *reservations, const struct port *port, bool boot,
                 struct error *error)
{
    _cleanup_(entry_freep) struct entry *entry = NULL;
    uint16_t failed = 0;
    bool releasing;
    int code;

    if (!port->host_port || port->host_port + (port->count ? port->count : 1u) > PORTS)
        return error_set(error, EINVAL, "%u ports from %u on", port->count, port->host_port);
    entry = entry_new(reservations, port);
    if (!entry)
        return error_set(error, ENOMEM, "cannot reserve %u ports", port->count);
    entry_prepare(reservations, entry);
    releasing = !reserve_is_released(reservations, reservations->released) ||
                !reserve_is_closed(reservations, reserve_closing(reservations));
    code = entry_bind(reservations, entry, boot, &failed);
    if (code == -EADDRINUSE && releasing) { /* it may not be closed yet */
        reserve_released_wait(reservations);
        closer_close(entry->fds, entry->count);
        code = entry_bind(reservations, entry, boot, &failed);
    }
    if (code < 0)
        return error_bind(reservations, entry, failed, code, error);
    code = entry_commit(reservations, entry, error);
    if (code == 0)
        TAKE_PTR(entry);
    return code;
}

/* ---------------------------------------------------------------- any free port */

static ssize_t setting_read(const char *path, char *ret_text, size_t size)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, ret_text, size - 1);

    ret_text[length > 0 ? length : 0] = '\0';
    return length;
}

static void range_read(unsigned *ret_low, unsigned *ret_high)
{
    char text[64];

    setting_read("/proc/sys/net/ipv4/ip_local_port_range", text, sizeof(text));
    if (sscanf(text, "%5u %5u", ret_low, ret_high) != 2 || *ret_low < 1 || *ret_low > *ret_high ||
        *ret_high >= PORTS) {
        *ret_low = 32768; /* the kernel's default (ip-sysctl) */
        *ret_high = 60999;
    }
}

/* Marks the ports of "8080,9148-9150". */
static void reserved_read(bool reserved[PORTS])
{
    _cleanup_free_ char *text = malloc(PORTS);
    char *at = text;

    if (!text || setting_read("/proc/sys/net/ipv4/ip_local_reserved_ports", text, PORTS) <= 0)
        return;
    while (*at >= '0' && *at <= '9') {
        unsigned long from = strtoul(at, &at, 10);
        unsigned long to = *at == '-' ? strtoul(at + 1, &at, 10) : from;

        for (; from <= to && from < PORTS; from++)
            reserved[from] = true;
        if (*at == ',')
            at++;
    }
}

static bool any_is_reserved(const bool reserved[PORTS], unsigned first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (reserved[first + i])
            return true;
    }
    return false;
}

/* Tries all starting points of the range, from a random one on. */
static int entry_bind_any(struct reservations *reservations, struct entry *entry,
                          struct error *error)
{
    _cleanup_free_ bool *reserved = calloc(PORTS, sizeof(*reserved));
    unsigned random = 0;
    unsigned low;
    unsigned high;
    unsigned places;

    if (!reserved || getrandom(&random, sizeof(random), 0) < 0)
        return error_set(error, ENOMEM, "cannot choose a port");
    range_read(&low, &high);
    reserved_read(reserved);
    places = high - low + 1 >= entry->count ? high - low + 2 - entry->count : 0;
    for (unsigned i = 0; i < places; i++) {
        uint16_t failed;
        int code;

        entry->first = (uint16_t)(low + (random + i) % places);
        if (any_is_reserved(reserved, entry->first, entry->count))
            continue;
        code = entry_bind(reservations, entry, false, &failed);
        if (code == 0)
            return 0;
        if (code != -EADDRINUSE)
            return error_bind(reservations, entry, failed, code, error);
        closer_close(entry->fds, entry->count);
    }
    return error_set_reason(error, REASON_PORT_IN_USE, "no %u free ports in a row from %u to %u",
                            entry->count, low, high);
}

int reserve_port_any(struct reservations *reservations, struct port *port, struct error *error)
{
    _cleanup_(entry_freep) struct entry *entry = entry_new(reservations, port);
    int code;

    if (!entry)
        return error_set(error, ENOMEM, "cannot reserve %u ports", port->count);
    entry_prepare(reservations, entry);
    code = entry_bind_any(reservations, entry, error);
    if (code == 0)
        code = entry_commit(reservations, entry, error);
    if (code < 0)
        return code;
    port->host_port = TAKE_PTR(entry)->first;
    return 0;
}

/* ---------------------------------------------------------------- the rest */

int reserve_relay_to(struct reservations *reservations, int64_t port_id, const struct ip *guest_ip,
                     struct error *error)
{
    struct entry *entry = entry_find(reservations, port_id);

    if (!entry)
        return error_set(error, ENOENT, "port entry %lld is not reserved", (long long)port_id);
    entry->guest_ip = *guest_ip;
    return entry_send_target(reservations, entry, error);
}

void reserve_rename(struct reservations *reservations, int64_t old_id, int64_t new_id)
{
    struct entry *entry = entry_find(reservations, old_id);

    if (!entry)
        return;
    entry_remove(reservations, entry);
    entry->id = new_id;
    entry_add(reservations, entry);
}

void reserve_release(struct reservations *reservations, int64_t port_id)
{
    struct entry *entry = entry_find(reservations, port_id);

    if (!entry)
        return;
    entry_remove(reservations, entry);
    entry_release(reservations, entry);
    entry_free(entry);
}

uint64_t reserve_released(const struct reservations *reservations)
{
    return reservations->released;
}

bool reserve_is_released(struct reservations *reservations, uint64_t release)
{
    return worker_has_synced(reservations->relay, release);
}

uint64_t reserve_closing(const struct reservations *reservations)
{
    return closer_added(reservations->closer);
}

bool reserve_is_closed(const struct reservations *reservations, uint64_t closing)
{
    return closer_has_closed(reservations->closer, closing);
}

void reserve_released_wait(struct reservations *reservations)
{
    if (!reserve_is_released(reservations, reservations->released) &&
        worker_sync(reservations->relay, RELEASE_TIMEOUT_MS) < 0)
        log_debug("the relay is slow to give ports back");
    if (!closer_wait(reservations->closer, closer_added(reservations->closer), RELEASE_TIMEOUT_MS))
        log_debug("ports are still being closed");
}

void reservations_settled(struct reservations *reservations)
{
    worker_inherited_close(reservations->relay);
}

pid_t reservations_pid(const struct reservations *reservations)
{
    return worker_pid(reservations->relay);
}

bool reservations_answer(struct reservations *reservations)
{
    return worker_answers(reservations->relay, ANSWER_TIMEOUT_MS);
}

static bool host_has_ipv6(void)
{
    _cleanup_close_ int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd >= 0 || errno != EAFNOSUPPORT;
}

int reservations_new(const struct reservations_config *config,
                     struct reservations **ret_reservations, struct error *error)
{
    struct worker_config worker = {.loop = config->loop,
                                   .kind = "relay",
                                   .run_dir = config->run_dir,
                                   .uid = config->uid,
                                   .gid = config->gid,
                                   .without_root = config->without_root,
                                   .log_level = config->log_level};
    struct reservations *reservations = calloc(1, sizeof(*reservations));
    int code;

    if (!reservations)
        return error_set(error, ENOMEM, "cannot reserve ports");
    reservations->on_released = config->on_released;
    reservations->userdata = config->userdata;
    reservations->has_ipv6 = host_has_ipv6();
    reserve_socket_prepare(DESCRIPTORS_PREPARED);
    code = closer_new(config->loop, relay_has_released, ports_closed, reservations,
                      &reservations->closer, error);
    if (code == 0)
        code = worker_new(&worker, &relay_ops, reservations, &reservations->relay, error);
    if (code < 0) {
        closer_free(reservations->closer);
        free(reservations);
        return code;
    }
    *ret_reservations = reservations;
    return 0;
}

void reservations_free(struct reservations *reservations, bool keep_running)
{
    if (!reservations)
        return;
    closer_free(reservations->closer);
    worker_free(reservations->relay, keep_running);
    for (size_t i = 0; i < BUCKETS; i++) {
        while (reservations->buckets[i]) {
            struct entry *entry = reservations->buckets[i];

            reservations->buckets[i] = entry->next;
            entry_free(entry);
        }
    }
    free(reservations);
}
