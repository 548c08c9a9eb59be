/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Nothing is answered before READY: a fresh worker gets its sockets, with queries that wait in
 * them, before it knows all names. Afterwards each batch of queries is preceded by a look at the
 * page: when it shows a number that was not handled yet, moatd's messages are read first, so that a
 * query sent after `attach` has answered finds the name. */
#include "worker/dns_control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "worker/dns_hook.h"
#include "worker/dns_rebind.h"

#define CACHE_BYTES (2u << 20) /* this and the next two: where moatd says nothing else */
#define WAITERS_PER_ASKER 2048
#define CONNECTIONS_PER_ASKER 64
#define UPSTREAM_SOCKETS 4096
#define CONNECTIONS 1024
#define CONNECTION_WAITING 128
#define CONNECTION_IDLE_MS 10000

struct dns_listeners {
    struct dns_udp_socket *udp[2]; /* IPv4, IPv6 */
    struct dns_tcp_listener *tcp[2];
};

struct dns_control {
    struct dns_control_config config;
    struct dns_service service;
    struct dns_upstream_pool *pool;
    struct dns_udp *udp;
    struct dns_tcp *tcp;
    struct dns_hook *hook;
    const struct dns_page *page; /* NULL before CONFIG */
    uint64_t number;             /* of the last message that was handled */
    uint64_t waited_for;         /* number on the page that was waited for already */
    uint32_t n_networks_served;
    bool rebind_guard;
    bool receiving; /* inside a sync */
    bool ready;
    bool draining;
};

/* --- sync --- */

/* What moatd has announced is about to be sent, or in its queue. It is waited for once, as long as
 * more comes: moatd may be dead. */
static void control_wait(struct dns_control *control, uint64_t number)
{
    uint64_t before;

    control->waited_for = number;
    do {
        before = control->number;
        control->config.wait(control->config.userdata);
        control->config.receive(control->config.userdata);
    } while (control->number < number && control->number > before && !control->draining);
}

static void control_sync(void *userdata)
{
    struct dns_control *control = userdata;
    uint64_t number = atomic_load_explicit(&control->page->number, memory_order_acquire);

    control->config.active(control->config.userdata);
    if (number == control->number || control->draining || control->receiving)
        return;
    control->receiving = true;
    control->config.receive(control->config.userdata);
    if (control->number < number && control->waited_for != number)
        control_wait(control, number);
    control->receiving = false;
}

/* --- life --- */

static void guest_gone(void *userdata, struct zone_guest *guest)
{
    struct dns_control *control = userdata;

    dns_tcp_close_all(control->tcp, &guest->quota);
    dns_gives_drop_guest(control->service.gives, guest->id);
    dns_forward_cancel_all(control->service.forward, &guest->quota);
}

static bool answer_refused(void *userdata, const uint8_t *data, const struct dns_answer *answer)
{
    const struct dns_control *control = userdata;

    return control->rebind_guard && dns_rebind_found(control->service.zone, data, answer);
}

static bool control_init(struct dns_control *control)
{
    struct dns_service *service = &control->service;
    struct loop *loop = control->config.loop;

    control->pool = dns_upstream_pool_new();
    service->cache = dns_cache_new(CACHE_BYTES);
    if (!control->pool || !service->cache)
        return false;
    service->upstreams = dns_upstreams_get(control->pool, NULL, 0);
    service->forward = dns_forward_new(&(struct dns_forward_config){
        .loop = loop,
        .cache = service->cache,
        .port = control->config.port,
        .max_waiters = WAITERS_PER_ASKER,
        .max_sockets = UPSTREAM_SOCKETS,
        .refuses = answer_refused,
        .userdata = control,
    });
    service->permits = dns_permits_new();
    if (service->permits)
        service->gives = dns_gives_new(&(struct dns_gives_config){
            .loop = loop,
            .permits = service->permits,
            .send = control->config.send,
            .release = dns_service_release,
            .drop = dns_service_drop,
            .userdata = control->config.userdata,
        });
    service->log = dns_log_new(&(struct dns_log_config){
        .loop = loop, .send = control->config.send, .userdata = control->config.userdata});
    control->udp = dns_udp_new(loop, service, control_sync, control);
    control->tcp = dns_tcp_new(&(struct dns_tcp_config){
        .loop = loop,
        .service = service,
        .sync = control_sync,
        .userdata = control,
        .max_connections = CONNECTIONS,
        .max_connections_per_asker = CONNECTIONS_PER_ASKER,
        .max_waiting = CONNECTION_WAITING,
        .idle_ms = CONNECTION_IDLE_MS,
    });
    control->hook = dns_hook_new(
        &(struct dns_hook_config){.loop = loop, .sync = control_sync, .userdata = control});
    return service->upstreams && service->forward && service->gives && service->log &&
           control->udp && control->tcp && control->hook;
}

struct dns_control *dns_control_new(const struct dns_control_config *config)
{
    struct dns_control *control = calloc(1, sizeof(*control));

    if (!control)
        return NULL;
    control->config = *config;
    dns_hash_seed();
    if (!control_init(control)) {
        dns_control_free(control);
        return NULL;
    }
    return control;
}

static void listeners_close(struct dns_listeners *listeners)
{
    for (int i = 0; i < 2; i++) {
        dns_udp_close(listeners->udp[i]);
        dns_tcp_close(listeners->tcp[i]);
    }
    free(listeners);
}

static void network_close(struct dns_control *control, struct zone_network *network)
{
    if (!network->listeners)
        return;
    listeners_close(network->listeners);
    network->listeners = NULL;
    control->n_networks_served--;
}

void dns_control_free(struct dns_control *control)
{
    if (!control)
        return;
    for (uint16_t i = 0; control->service.zone && i < ZONE_NETWORKS_MAX; i++) {
        struct zone_network *network = zone_network_at(control->service.zone, i);

        if (network)
            network_close(control, network);
    }
    dns_hook_free(control->hook);
    zone_free(control->service.zone);
    dns_tcp_free(control->tcp);
    dns_forward_free(control->service.forward);
    dns_gives_free(control->service.gives);
    dns_permits_free(control->service.permits);
    dns_log_free(control->service.log);
    dns_udp_free(control->udp);
    dns_cache_free(control->service.cache);
    dns_upstreams_put(control->service.upstreams);
    dns_routes_deinit(&control->service.routes);
    dns_upstream_pool_free(control->pool);
    if (control->page)
        munmap((void *)(uintptr_t)control->page, sizeof(*control->page));
    free(control);
}

/* --- messages --- */

static bool text_is_ended(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

/* A reference, or NULL for none. */
static struct dns_upstreams *servers_get(struct dns_control *control,
                                         const struct dns_servers *servers)
{
    uint32_t count = servers->count < DNS_SERVERS_MAX ? servers->count : DNS_SERVERS_MAX;

    return count > 0 ? dns_upstreams_get(control->pool, servers->servers, count) : NULL;
}

static void settings_apply(struct dns_control *control, const struct dns_config_message *message)
{
    struct dns_service *service = &control->service;

    service->rate = message->rate;
    control->rebind_guard = message->rebind_guard;
    dns_cache_set_bounds(service->cache, message->cache_bytes ? message->cache_bytes : CACHE_BYTES,
                         message->stale_s);
    dns_forward_set_stale(service->forward, message->stale_s > 0);
    if (message->max_in_flight)
        dns_forward_set_max_waiters(service->forward, message->max_in_flight);
    if (message->max_connections)
        dns_tcp_set_max_per_asker(control->tcp, message->max_connections);
}

static int handle_config(struct dns_control *control, const struct dns_config_message *message,
                         int *fds, size_t n_fds)
{
    void *page;
    int r;

    if (control->page || n_fds != 1 || !text_is_ended(message->domain, sizeof(message->domain)))
        return -EPROTO;
    page = mmap(NULL, sizeof(*control->page), PROT_READ, MAP_SHARED, fds[0], 0);
    if (page == MAP_FAILED)
        return -errno;
    r = zone_new(message->domain, message->ttl_s, guest_gone, control, &control->service.zone);
    if (r < 0) {
        munmap(page, sizeof(*control->page));
        return r;
    }
    control->page = page;
    settings_apply(control, message);
    return 0;
}

static int handle_upstreams(struct dns_control *control,
                            const struct dns_upstreams_message *message)
{
    const struct dns_servers *servers = &message->upstreams;
    uint32_t count = servers->count < DNS_SERVERS_MAX ? servers->count : DNS_SERVERS_MAX;
    struct dns_upstreams *set = dns_upstreams_get(control->pool, servers->servers, count);

    if (!set)
        return -ENOMEM;
    dns_upstreams_put(control->service.upstreams);
    control->service.upstreams = set;
    return 0;
}

static void listeners_start(const struct dns_control *control, struct dns_listeners *listeners)
{
    for (int i = 0; i < 2; i++) {
        if (listeners->udp[i])
            dns_udp_set_receiving(listeners->udp[i], control->ready);
        if (listeners->tcp[i])
            dns_tcp_set_accepting(listeners->tcp[i], control->ready);
    }
}

/* Opens a transport for each descriptor that came; those that it took are taken out of fds. */
static int network_open(struct dns_control *control, struct zone_network *network, uint8_t sockets,
                        int *fds)
{
    struct dns_listeners *listeners = calloc(1, sizeof(*listeners));
    size_t at = 0;

    if (!listeners)
        return -ENOMEM;
    network->listeners = listeners;
    control->n_networks_served++;
    for (unsigned i = 0; i < DNS_SOCKETS_COUNT; i++) {
        unsigned family = i / 2;
        bool opened;

        if (!(sockets & 1u << i))
            continue;
        if (i % 2 == 0)
            opened = (listeners->udp[family] = dns_udp_open(control->udp, fds[at], network));
        else
            opened = (listeners->tcp[family] = dns_tcp_listen(control->tcp, fds[at], network));
        if (!opened) {
            network_close(control, network);
            return -ENOMEM;
        }
        fds[at++] = -1;
    }
    listeners_start(control, listeners);
    return 0;
}

static int handle_network(struct dns_control *control, const struct dns_network_message *message,
                          int *fds, size_t n_fds)
{
    struct zone_network config = {
        .id = message->id,
        .internal = message->internal,
        .gateway = message->gateway,
        .gateway6 = message->gateway6,
        .subnet = message->subnet,
        .subnet6 = message->subnet6,
    };
    bool keep = message->sockets == DNS_SOCKETS_KEEP;
    struct zone_network *network;
    int r;

    if (n_fds != (keep ? 0 : (size_t)__builtin_popcount(message->sockets)) ||
        (!keep && message->sockets >= 1u << DNS_SOCKETS_COUNT) ||
        !text_is_ended(message->name, sizeof(message->name)) ||
        dns_name_parse(message->name, &config.label) < 0 || config.label.labels != 1)
        return -EPROTO;
    config.upstreams = servers_get(control, &message->upstreams);
    r = zone_network_set(control->service.zone, &config, &network);
    dns_upstreams_put(config.upstreams);
    if (r < 0)
        return r;
    dns_hook_filter_changed(control->hook);
    if (keep)
        return 0;
    network_close(control, network);
    return n_fds > 0 ? network_open(control, network, message->sockets, fds) : 0;
}

static void handle_network_remove(struct dns_control *control,
                                  const struct dns_remove_message *message)
{
    struct zone_network *network = zone_network_find(control->service.zone, message->id);

    if (network)
        network_close(control, network);
    zone_network_remove(control->service.zone, message->id);
    dns_hook_filter_changed(control->hook);
}

static int handle_endpoint(struct dns_control *control, const struct dns_endpoint_message *message,
                           size_t length)
{
    struct zone_endpoint_config config = {
        .id = message->id,
        .guest_id = message->guest_id,
        .network_id = message->network_id,
        .ip = message->ip,
        .ip6 = message->ip6,
        .n_names = message->n_names,
    };
    const char *name = message->names;
    const char *end = name + message->names_length;
    int r;

    if (message->n_names == 0 || message->n_names > ZONE_NAMES_MAX ||
        length - sizeof(*message) != message->names_length)
        return -EPROTO;
    for (size_t i = 0; i < message->n_names; i++) {
        config.names[i] = name;
        name = memchr(name, '\0', (size_t)(end - name));
        if (!name++)
            return -EPROTO;
    }
    config.upstreams = servers_get(control, &message->upstreams);
    r = zone_endpoint_set(control->service.zone, &config);
    dns_upstreams_put(config.upstreams);
    return r;
}

static int handle_forward(struct dns_control *control, const struct dns_forward_message *message)
{
    const struct dns_servers *servers = &message->servers;
    uint32_t count = servers->count < DNS_SERVERS_MAX ? servers->count : DNS_SERVERS_MAX;
    struct dns_upstreams *set;
    int r;

    if (!text_is_ended(message->suffix, sizeof(message->suffix)))
        return -EPROTO;
    set = dns_upstreams_get_trusted(control->pool, servers->servers, count);
    if (!set)
        return -ENOMEM;
    r = dns_routes_set(&control->service.routes, message->suffix, set);
    dns_upstreams_put(set);
    return r;
}

static int handle_flush(struct dns_control *control, const struct dns_flush_message *message)
{
    struct dns_name name;

    if (!text_is_ended(message->name, sizeof(message->name)) ||
        dns_name_parse(message->name, &name) < 0)
        return -EPROTO;
    dns_cache_flush_below(control->service.cache, &name); /* "" is the root */
    control->config.active(control->config.userdata);
    return 0;
}

static int handle_record(struct dns_control *control, const struct dns_record_message *message,
                         size_t length)
{
    struct zone_record_config config = {
        .id = message->id,
        .network_id = message->network_id,
        .name = message->name,
        .type = message->type,
        .length = message->rdata_length,
        .rdata = message->rdata,
    };

    if (!text_is_ended(message->name, sizeof(message->name)) ||
        length - sizeof(*message) != message->rdata_length)
        return -EPROTO;
    return zone_record_set(control->service.zone, &config);
}

static void handle_ready(struct dns_control *control)
{
    control->ready = true;
    for (uint16_t i = 0; i < ZONE_NETWORKS_MAX; i++) {
        const struct zone_network *network = zone_network_at(control->service.zone, i);

        if (network && network->listeners)
            listeners_start(control, network->listeners);
    }
    dns_hook_start(control->hook, control->service.zone);
}

static int handle_hook(struct dns_control *control, int *fds, size_t n_fds)
{
    if (n_fds != 1)
        return -EPROTO;
    dns_hook_add(control->hook, fds[0]);
    fds[0] = -1;
    return 0;
}

static const struct {
    const char *name;
    size_t length;   /* of the payload */
    bool is_minimum; /* more may follow */
} formats[] = {
    [DNS_MESSAGE_CONFIG - WORKER_FIRST_OWN] = {"config", sizeof(struct dns_config_message), false},
    [DNS_MESSAGE_UPSTREAMS -
        WORKER_FIRST_OWN] = {"upstreams", sizeof(struct dns_upstreams_message), false},
    [DNS_MESSAGE_NETWORK -
        WORKER_FIRST_OWN] = {"network", sizeof(struct dns_network_message), false},
    [DNS_MESSAGE_NETWORK_REMOVE -
        WORKER_FIRST_OWN] = {"network-remove", sizeof(struct dns_remove_message), false},
    [DNS_MESSAGE_ENDPOINT -
        WORKER_FIRST_OWN] = {"endpoint", sizeof(struct dns_endpoint_message), true},
    [DNS_MESSAGE_ENDPOINT_REMOVE -
        WORKER_FIRST_OWN] = {"endpoint-remove", sizeof(struct dns_remove_message), false},
    [DNS_MESSAGE_RECORD - WORKER_FIRST_OWN] = {"record", sizeof(struct dns_record_message), true},
    [DNS_MESSAGE_RECORD_REMOVE -
        WORKER_FIRST_OWN] = {"record-remove", sizeof(struct dns_remove_message), false},
    [DNS_MESSAGE_FORWARD -
        WORKER_FIRST_OWN] = {"forward", sizeof(struct dns_forward_message), false},
    [DNS_MESSAGE_FLUSH - WORKER_FIRST_OWN] = {"flush", sizeof(struct dns_flush_message), false},
    [DNS_MESSAGE_LOG - WORKER_FIRST_OWN] = {"log", sizeof(struct dns_log_message), false},
    [DNS_MESSAGE_READY - WORKER_FIRST_OWN] = {"ready", sizeof(struct dns_message), false},
    [DNS_MESSAGE_PERMIT - WORKER_FIRST_OWN] = {"permit", sizeof(struct dns_permit_message), true},
    [DNS_MESSAGE_PERMIT_REMOVE -
        WORKER_FIRST_OWN] = {"permit-remove", sizeof(struct dns_remove_message), false},
    [DNS_MESSAGE_GIVEN - WORKER_FIRST_OWN] = {"given", sizeof(struct dns_given_message), false},
    [DNS_MESSAGE_HOOK - WORKER_FIRST_OWN] = {"hook", sizeof(struct dns_message), false},
};

static bool message_is_well_formed(const struct dns_control *control, uint16_t type, size_t length)
{
    size_t index = type - (size_t)WORKER_FIRST_OWN;

    if (index >= ARRAY_SIZE(formats) || !formats[index].name)
        return false;
    if (!control->page && type != DNS_MESSAGE_CONFIG)
        return false;
    return formats[index].is_minimum ? length >= formats[index].length
                                     : length == formats[index].length;
}

static int message_act(struct dns_control *control, uint16_t type, const void *payload,
                       size_t length, int *fds, size_t n_fds)
{
    const struct dns_remove_message *remove = payload;

    switch (type) {
    case DNS_MESSAGE_CONFIG:
        return handle_config(control, payload, fds, n_fds);
    case DNS_MESSAGE_UPSTREAMS:
        return handle_upstreams(control, payload);
    case DNS_MESSAGE_NETWORK:
        return handle_network(control, payload, fds, n_fds);
    case DNS_MESSAGE_NETWORK_REMOVE:
        handle_network_remove(control, payload);
        return 0;
    case DNS_MESSAGE_ENDPOINT:
        return handle_endpoint(control, payload, length);
    case DNS_MESSAGE_ENDPOINT_REMOVE:
        zone_endpoint_remove(control->service.zone, remove->id);
        return 0;
    case DNS_MESSAGE_RECORD:
        return handle_record(control, payload, length);
    case DNS_MESSAGE_RECORD_REMOVE:
        zone_record_remove(control->service.zone, remove->id);
        return 0;
    case DNS_MESSAGE_FORWARD:
        return handle_forward(control, payload);
    case DNS_MESSAGE_FLUSH:
        return handle_flush(control, payload);
    case DNS_MESSAGE_LOG:
        control->service.logging = ((const struct dns_log_message *)payload)->on;
        return 0;
    case DNS_MESSAGE_READY:
        handle_ready(control);
        return 0;
    case DNS_MESSAGE_PERMIT:
        return dns_permits_set(control->service.permits, payload, length);
    case DNS_MESSAGE_PERMIT_REMOVE:
        dns_permits_remove(control->service.permits, remove->id);
        return 0;
    case DNS_MESSAGE_GIVEN:
        dns_gives_answered(control->service.gives, payload, control->receiving);
        return 0;
    case DNS_MESSAGE_HOOK:
        return handle_hook(control, fds, n_fds);
    default:
        return -EPROTO;
    }
}

void dns_control_message(struct dns_control *control, uint16_t type, const void *payload,
                         size_t length, int *fds, size_t n_fds)
{
    const struct dns_message *message = payload;
    int r;

    /* A later moatd's words are for its own worker, but for these: what still holds the sockets of
     * a network that goes would keep others from them; and what we asked it ourselves. */
    if (control->draining && type != DNS_MESSAGE_NETWORK_REMOVE && type != DNS_MESSAGE_GIVEN)
        return;
    if (!message_is_well_formed(control, type, length)) {
        log_error("a message of type %u with %zu bytes can't be understood", type, length);
        return;
    }
    r = message_act(control, type, payload, length, fds, n_fds);
    if (r < 0)
        log_error("message \"%s\" can't be carried out: %s", formats[type - WORKER_FIRST_OWN].name,
                  strerror(-r));
    control->number = message->number;
}

/* --- the end --- */

bool dns_control_serves(const struct dns_control *control)
{
    if (!control->draining) /* without guests only the host could ask */
        return control->n_networks_served > 0 && zone_has_guests(control->service.zone);
    return dns_forward_is_busy(control->service.forward) || dns_tcp_count(control->tcp) > 0 ||
           dns_gives_is_busy(control->service.gives);
}

static void hand_over_one(struct worker_handover *handover, uint8_t protocol, int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    struct worker_socket key = {.protocol = protocol};

    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return;
    if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;

        key.port = ntohs(v6->sin6_port);
        memcpy(key.address, &v6->sin6_addr, 16);
    } else {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;

        key.port = ntohs(v4->sin_port);
        memcpy(key.address, &v4->sin_addr, 4);
    }
    key.family = (uint8_t)address.ss_family;
    worker_handover_add(handover, &key, fd);
}

void dns_control_hand_over(const struct dns_control *control, struct worker_handover *handover)
{
    for (uint16_t i = 0; control->service.zone && i < ZONE_NETWORKS_MAX; i++) {
        const struct zone_network *network = zone_network_at(control->service.zone, i);

        for (int j = 0; network && network->listeners && j < 2; j++) {
            if (network->listeners->udp[j])
                hand_over_one(handover, IPPROTO_UDP, dns_udp_fd(network->listeners->udp[j]));
            if (network->listeners->tcp[j])
                hand_over_one(handover, IPPROTO_TCP, dns_tcp_fd(network->listeners->tcp[j]));
        }
    }
}

/* UDP sockets stay open for the answers that are due; nothing is taken from them any more. */
void dns_control_drain(struct dns_control *control)
{
    control->draining = true;
    control->ready = false;
    for (uint16_t i = 0; control->service.zone && i < ZONE_NETWORKS_MAX; i++) {
        const struct zone_network *network = zone_network_at(control->service.zone, i);

        if (network && network->listeners)
            listeners_start(control, network->listeners);
    }
    dns_hook_stop(control->hook);
    dns_tcp_drain(control->tcp);
    dns_gives_ask_again(control->service.gives);
}

void dns_control_stats(const struct dns_control *control, struct dns_stats_message *ret_stats)
{
    const struct dns_service_stats *stats = &control->service.stats;
    const struct dns_forward_stats *forward = dns_forward_stats(control->service.forward);

    *ret_stats = (struct dns_stats_message){
        .message.number = control->number,
        .queries = stats->queries,
        .local = stats->local,
        .cached = stats->cached,
        .missed = stats->missed,
        .stale = forward->stale,
        .forwarded = forward->questions,
        .failed = forward->failed,
        .refused = stats->refused + forward->refused,
        .shed = stats->shed + forward->shed,
        .cache_bytes = dns_cache_bytes(control->service.cache),
        .cache_entries = dns_cache_count(control->service.cache),
    };
}
