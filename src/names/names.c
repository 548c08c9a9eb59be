/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the worker is told is kept here in the form of its messages, by id: after a crash all of
 * them are sent again, then READY. A fresh worker answers nothing before READY, which the first one
 * gets when start-up has settled.
 *
 * Every message has a number. The page, which the worker maps too, shows the number before the
 * message is sent; a query that reaches the worker after a caller of ours has answered therefore
 * finds either the message or the notice that it comes (dns_message.h). */
#include "names/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fdstore.h"
#include "base/log.h"
#include "base/record.h"
#include "names/permits.h"
#include "names/query_log.h"
#include "names/resolv.h"
#include "names/resolved.h"
#include "names/socket.h"
#include "worker/dns_message.h"
#include "worker/dns_table.h"
#include "worker/supervisor.h"

#define SYNC_TIMEOUT_MS 200
#define LOG_TIMEOUT_MS 600000 /* the query log goes off when nobody has asked for so long */

/* One network, with its sockets in the order of DNS_SOCKET_…; -1 where there is none. */
struct served_network {
    struct served_network *next;
    struct ips servers; /* as configured; the message has those that are no gateways of ours */
    struct dns_network_message message;
    int fds[DNS_SOCKETS_COUNT];
};

/* A suffix with servers of its own. */
struct served_forward {
    struct ips servers; /* as configured; the message has those that are no gateways of ours */
    struct dns_forward_message message;
};

/* An endpoint's or a static record's message. */
struct kept_message {
    int64_t id;
    uint16_t type;
    size_t length;
    struct ips servers; /* as for networks */
    struct dns_message *payload;
};

struct names {
    struct loop *loop;
    struct worker *worker;
    struct resolv *resolv;
    struct resolved *resolved; /* NULL: it is not to be told */
    struct fdstore *fdstore;
    struct dns_page *page;
    int page_fd;
    struct dns_config_message config;
    struct ips configured; /* upstream servers from the configuration */
    struct ips upstreams;  /* those in use: without our own gateways */
    struct served_network *networks;
    struct served_forward *forwards;
    size_t n_forwards;
    struct dns_table endpoints; /* of struct kept_message */
    struct dns_table records;
    struct dns_table permits; /* of struct permit_parts */
    names_give_fn give;
    void *userdata;
    struct dns_stats_message stats;
    struct query_log *log; /* NULL: it is off */
    struct loop_timer *log_timer;
    bool settled;
};

/* --- sending --- */

static int message_send(struct names *names, uint16_t type, struct dns_message *message,
                        size_t length, const int *fds, size_t n_fds, struct error *error)
{
    uint64_t number = atomic_load_explicit(&names->page->number, memory_order_relaxed) + 1;

    message->number = number;
    atomic_store_explicit(&names->page->number, number, memory_order_release);
    return worker_send(names->worker, type, message, length, fds, n_fds, error);
}

/* For what nobody waits for, and for what can't be refused any more. */
static void message_send_or_log(struct names *names, uint16_t type, struct dns_message *message,
                                size_t length)
{
    struct error error = ERROR_INIT;

    if (message_send(names, type, message, length, NULL, 0, &error) < 0)
        log_error("the name worker can't be told of a change: %s", error.text);
}

static void remove_send(struct names *names, uint16_t type, int64_t id)
{
    struct dns_remove_message message = {.id = id};

    message_send_or_log(names, type, &message.message, sizeof(message));
}

static int config_send(struct names *names, struct error *error)
{
    return message_send(names, DNS_MESSAGE_CONFIG, &names->config.message, sizeof(names->config),
                        &names->page_fd, 1, error);
}

static int network_send(struct names *names, struct served_network *network, bool with_sockets,
                        struct error *error)
{
    int fds[DNS_SOCKETS_COUNT];
    size_t n_fds = 0;

    network->message.sockets = with_sockets ? 0 : DNS_SOCKETS_KEEP;
    for (unsigned i = 0; with_sockets && i < DNS_SOCKETS_COUNT; i++) {
        if (network->fds[i] < 0)
            continue;
        fds[n_fds++] = network->fds[i];
        network->message.sockets |= (uint8_t)(1u << i);
    }
    return message_send(names, DNS_MESSAGE_NETWORK, &network->message.message,
                        sizeof(network->message), fds, n_fds, error);
}

/* --- upstream servers --- */

static bool is_own_gateway(const struct names *names, const struct ip *ip)
{
    for (const struct served_network *network = names->networks; network; network = network->next)
        if (ip_equal(&network->message.gateway, ip) || ip_equal(&network->message.gateway6, ip))
            return true;
    return false;
}

/* Asking ourselves would go in circles. */
static void servers_fill(const struct names *names, const struct ips *servers,
                         struct dns_servers *ret_servers)
{
    struct dns_servers filled = {0};

    for (size_t i = 0; i < servers->count && filled.count < DNS_SERVERS_MAX; i++)
        if (!is_own_gateway(names, &servers->items[i]))
            filled.servers[filled.count++] = servers->items[i];
    *ret_servers = filled;
}

static bool servers_update(const struct names *names, const struct ips *servers,
                           struct dns_servers *filled)
{
    struct dns_servers now;

    servers_fill(names, servers, &now);
    if (memcmp(&now, filled, sizeof(now)) == 0)
        return false;
    *filled = now;
    return true;
}

static const struct ips *upstreams_wanted(const struct names *names)
{
    return names->resolv ? resolv_servers(names->resolv) : &names->configured;
}

static int upstreams_send(struct names *names, struct error *error)
{
    struct dns_upstreams_message message = {0};

    servers_fill(names, &names->upstreams, &message.upstreams);
    return message_send(names, DNS_MESSAGE_UPSTREAMS, &message.message, sizeof(message), NULL, 0,
                        error);
}

static void upstreams_log(const struct names *names)
{
    char text[DNS_SERVERS_MAX * (IP_TEXT_MAX + 1) + 1] = "";
    size_t length = 0;

    for (size_t i = 0; i < names->upstreams.count && i < DNS_SERVERS_MAX; i++) {
        char address[IP_TEXT_MAX];

        ip_format(&names->upstreams.items[i], address);
        text[length++] = ' ';
        memcpy(text + length, address, strlen(address) + 1);
        length += strlen(address);
    }
    if (length > 0)
        log_info("name servers of the host:%s", text);
    else
        log_warning("the host has no name server: only guests' names are resolved");
}

static bool ips_equal(const struct ips *a, const struct ips *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!ip_equal(&a->items[i], &b->items[i]))
            return false;
    return true;
}

/* Takes what the host's resolv.conf says now, without our own gateways. Returns whether that is
 * something new. */
static bool upstreams_read(struct names *names)
{
    const struct ips *wanted = upstreams_wanted(names);
    struct ips now = {0};

    for (size_t i = 0; i < wanted->count; i++)
        if (!is_own_gateway(names, &wanted->items[i]) && ips_add(&now, &wanted->items[i]) < 0)
            break;
    if (ips_equal(&now, &names->upstreams)) {
        ips_deinit(&now);
        return false;
    }
    ips_deinit(&names->upstreams);
    names->upstreams = now;
    return true;
}

static void upstreams_changed(void *userdata)
{
    struct names *names = userdata;
    struct error error = ERROR_INIT;

    if (!upstreams_read(names))
        return;
    upstreams_log(names);
    if (upstreams_send(names, &error) < 0)
        log_error("the name worker can't be told of the host's name servers: %s", error.text);
}

/* Sends those whose servers are others now. */
static void forwards_changed(struct names *names)
{
    for (size_t i = 0; i < names->n_forwards; i++) {
        struct served_forward *forward = &names->forwards[i];

        if (servers_update(names, &forward->servers, &forward->message.servers))
            message_send_or_log(names, DNS_MESSAGE_FORWARD, &forward->message.message,
                                sizeof(forward->message));
    }
}

/* The set of our gateways is another one: every list of servers is looked at again. */
static void gateways_changed(struct names *names)
{
    struct error error = ERROR_INIT;

    upstreams_changed(names);
    forwards_changed(names);
    for (struct served_network *network = names->networks; network; network = network->next)
        if (servers_update(names, &network->servers, &network->message.upstreams) &&
            network_send(names, network, false, &error) < 0)
            log_error("the name worker can't be told of a network's name servers: %s", error.text);
    for (uint32_t i = 0; names->endpoints.slots && i <= names->endpoints.mask; i++) {
        struct kept_message *kept = names->endpoints.slots[i].item;
        struct dns_endpoint_message *message;

        if (!kept || kept->servers.count == 0)
            continue;
        message = (struct dns_endpoint_message *)kept->payload;
        if (servers_update(names, &kept->servers, &message->upstreams))
            message_send_or_log(names, kept->type, kept->payload, kept->length);
    }
}

/* --- messages that are kept --- */

static uint32_t id_hash(int64_t id)
{
    return (uint32_t)(((uint64_t)id * 0x9e3779b97f4a7c15u) >> 32);
}

static bool kept_has_id(const void *item, const void *key)
{
    return ((const struct kept_message *)item)->id == *(const int64_t *)key;
}

static struct kept_message *kept_find(const struct dns_table *table, int64_t id)
{
    return dns_table_find(table, id_hash(id), kept_has_id, &id);
}

static void kept_free(struct kept_message *kept)
{
    if (!kept)
        return;
    ips_deinit(&kept->servers);
    free(kept->payload);
    free(kept);
}

DEFINE_CLEANUP(struct kept_message, kept_free)

static struct kept_message *kept_new(int64_t id, uint16_t type, size_t length)
{
    struct kept_message *kept = calloc(1, sizeof(*kept));

    if (!kept)
        return NULL;
    kept->id = id;
    kept->type = type;
    kept->length = length;
    kept->payload = calloc(1, length);
    if (!kept->payload) {
        free(kept);
        return NULL;
    }
    return kept;
}

/* Do they say the same, but for their numbers? */
static bool kept_equal(const struct kept_message *a, const struct kept_message *b)
{
    size_t skipped = sizeof(struct dns_message);

    return a->length == b->length &&
           memcmp((const char *)a->payload + skipped, (const char *)b->payload + skipped,
                  a->length - skipped) == 0;
}

/* Sends it, and keeps it in the place of what had its id; takes it over when it returns 0. On
 * failure the former one stays. */
static int kept_add(struct names *names, struct dns_table *table, struct kept_message *kept,
                    struct error *error)
{
    struct kept_message *former = kept_find(table, kept->id);
    int r;

    if (former && kept_equal(former, kept)) {
        kept_free(kept);
        return 0;
    }
    if (dns_table_reserve(table, 1) < 0)
        return error_set(error, ENOMEM, "out of memory");
    r = message_send(names, kept->type, kept->payload, kept->length, NULL, 0, error);
    if (r < 0)
        return r;
    if (former) {
        dns_table_remove(table, id_hash(former->id), former);
        kept_free(former);
    }
    dns_table_add(table, id_hash(kept->id), kept);
    return 0;
}

static bool kept_remove(struct dns_table *table, int64_t id)
{
    struct kept_message *kept = kept_find(table, id);

    if (!kept)
        return false;
    dns_table_remove(table, id_hash(id), kept);
    kept_free(kept);
    return true;
}

static void table_free(struct dns_table *table)
{
    for (uint32_t i = 0; table->slots && i <= table->mask; i++)
        kept_free(table->slots[i].item);
    dns_table_deinit(table);
}

/* --- domain rules --- */

static bool permit_is_of(const void *item, const void *key)
{
    return ((const struct permit_parts *)item)->guest_id == *(const int64_t *)key;
}

static int permit_send(struct names *names, const struct permit_parts *parts, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < parts->count; i++)
        r = message_send(names, DNS_MESSAGE_PERMIT, &parts->items[i].payload->message,
                         parts->items[i].length, NULL, 0, error);
    return r;
}

static int permits_send(struct names *names, struct error *error)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && names->permits.slots && i <= names->permits.mask; i++)
        if (names->permits.slots[i].item)
            r = permit_send(names, names->permits.slots[i].item, error);
    return r;
}

static void permit_forget(struct names *names, struct permit_parts *parts)
{
    dns_table_remove(&names->permits, id_hash(parts->guest_id), parts);
    permit_parts_free(parts);
}

/* The worker's state after a failure is not known: it is told the former rules once more. */
static void permit_send_again(struct names *names, const struct permit_parts *former,
                              int64_t guest_id)
{
    struct error error = ERROR_INIT;

    if (!former)
        remove_send(names, DNS_MESSAGE_PERMIT_REMOVE, guest_id);
    else if (permit_send(names, former, &error) < 0)
        log_error("the name worker can't be told of a guest's rules: %s", error.text);
}

int names_permit_set(struct names *names, const struct names_permit *permit, struct error *error)
{
    struct permit_parts *former =
        dns_table_find(&names->permits, id_hash(permit->guest_id), permit_is_of, &permit->guest_id);
    struct permit_parts *parts;
    int r = fault_point("names.permit", error);

    if (r < 0)
        return r;
    parts = permit_parts_new(permit);
    if (!parts || dns_table_reserve(&names->permits, 1) < 0) {
        permit_parts_free(parts);
        return error_set(error, ENOMEM, "out of memory");
    }
    if (former && permit_parts_equal(former, parts)) {
        permit_parts_free(parts);
        return 0;
    }
    r = permit_send(names, parts, error);
    if (r < 0) {
        permit_send_again(names, former, permit->guest_id);
        permit_parts_free(parts);
        return r;
    }
    if (former)
        permit_forget(names, former);
    dns_table_add(&names->permits, id_hash(parts->guest_id), parts);
    return 0;
}

void names_permit_remove(struct names *names, int64_t guest_id)
{
    struct permit_parts *parts =
        dns_table_find(&names->permits, id_hash(guest_id), permit_is_of, &guest_id);

    if (!parts)
        return;
    remove_send(names, DNS_MESSAGE_PERMIT_REMOVE, guest_id);
    permit_forget(names, parts);
}

bool names_is_of_networks(const struct names *names, const struct ip *ip)
{
    for (const struct served_network *network = names->networks; network; network = network->next)
        if (cidr_contains_ip(&network->message.subnet, ip) ||
            cidr_contains_ip(&network->message.subnet6, ip))
            return true;
    return false;
}

/* --- addresses that guests are about to be told --- */

static bool name_is_printable(const char *name)
{
    const char *at = name;

    while (*at > ' ' && *at < 0x7f)
        at++;
    return at > name && *at == '\0';
}

static bool give_is_well_formed(const struct dns_give_message *message, size_t length)
{
    if (length < sizeof(*message) || message->count == 0 || message->count > DNS_GIVE_MAX ||
        length != sizeof(*message) + message->count * sizeof(message->addresses[0]) ||
        !memchr(message->name, '\0', sizeof(message->name)) || !name_is_printable(message->name))
        return false;
    for (size_t i = 0; i < message->count; i++)
        if (message->addresses[i].ip.family != AF_INET &&
            message->addresses[i].ip.family != AF_INET6)
            return false;
    return true;
}

static enum names_given give_ask(struct names *names, const struct dns_give_message *message)
{
    struct names_address addresses[DNS_GIVE_MAX];
    struct names_give give = {
        .guest_id = message->guest_id,
        .version = message->version,
        .name = message->name,
        .addresses = addresses,
        .count = message->count,
        .wait = message->wait,
    };

    for (size_t i = 0; i < message->count; i++) {
        const struct dns_give_address *address = &message->addresses[i];

        addresses[i].ip = ip_from_bytes(address->ip.family, address->ip.bytes);
        addresses[i].ttl_s = address->ttl_s;
    }
    return names->give ? names->give(names->userdata, &give) : NAMES_GIVEN_FAILED;
}

static void given_answer(struct names *names, uint64_t number, enum names_given given,
                         bool draining)
{
    static const uint8_t words[] = {
        [NAMES_GIVEN_OPEN] = DNS_GIVEN_OPEN,
        [NAMES_GIVEN_REFUSED] = DNS_GIVEN_REFUSED,
        [NAMES_GIVEN_FAILED] = DNS_GIVEN_FAILED,
    };
    struct dns_given_message answer = {.number = number, .given = words[given]};

    if (draining)
        worker_send_draining(names->worker, DNS_MESSAGE_GIVEN, &answer, sizeof(answer));
    else
        message_send_or_log(names, DNS_MESSAGE_GIVEN, &answer.message, sizeof(answer));
}

static void give_received(struct names *names, const void *payload, size_t length, bool draining)
{
    const struct dns_give_message *message = payload; /* aligned for any type */
    enum names_given given;

    if (!give_is_well_formed(message, length)) {
        log_warning("the name worker said something that can't be understood");
        return;
    }
    given = give_ask(names, message);
    if (message->wait)
        given_answer(names, message->number, given, draining);
}

/* --- the worker --- */

static int table_send(struct names *names, const struct dns_table *table, struct error *error)
{
    for (uint32_t i = 0; table->slots && i <= table->mask; i++) {
        struct kept_message *kept = table->slots[i].item;
        int r;

        if (!kept)
            continue;
        r = message_send(names, kept->type, kept->payload, kept->length, NULL, 0, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int forwards_send(struct names *names, struct error *error)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < names->n_forwards; i++)
        r = message_send(names, DNS_MESSAGE_FORWARD, &names->forwards[i].message.message,
                         sizeof(names->forwards[i].message), NULL, 0, error);
    return r;
}

static int log_send(struct names *names, struct error *error)
{
    struct dns_log_message message = {.on = names->log != NULL};

    return message_send(names, DNS_MESSAGE_LOG, &message.message, sizeof(message), NULL, 0, error);
}

static int ready_send(struct names *names, struct error *error)
{
    struct dns_message message = {0};

    return message_send(names, DNS_MESSAGE_READY, &message, sizeof(message), NULL, 0, error);
}

static int everything_send(struct names *names, struct error *error)
{
    int r = config_send(names, error);

    if (r == 0)
        r = upstreams_send(names, error);
    if (r == 0)
        r = forwards_send(names, error);
    if (r == 0 && names->log)
        r = log_send(names, error);
    for (struct served_network *network = names->networks; r == 0 && network;
         network = network->next)
        r = network_send(names, network, true, error);
    if (r == 0)
        r = permits_send(names, error);
    if (r == 0)
        r = table_send(names, &names->endpoints, error);
    if (r == 0)
        r = table_send(names, &names->records, error);
    if (r == 0 && names->settled)
        r = ready_send(names, error);
    return r;
}

static void worker_started(void *userdata)
{
    struct names *names = userdata;
    struct error error = ERROR_INIT;

    if (everything_send(names, &error) < 0)
        log_error("the name worker can't be told what it should serve: %s", error.text);
}

static void worker_said(void *userdata, uint16_t type, const void *payload, size_t length)
{
    struct names *names = userdata;

    if (type == DNS_MESSAGE_STATS && length == sizeof(names->stats))
        memcpy(&names->stats, payload, length);
    else if (type == DNS_MESSAGE_GIVE)
        give_received(names, payload, length, false);
    else if (type == DNS_MESSAGE_QUERIES && names->log &&
             !query_log_add(names->log, payload, length))
        log_warning("the name worker said something that can't be understood");
}

/* A former moatd's, that finishes what it had begun. */
static void worker_said_draining(void *userdata, uint16_t type, const void *payload, size_t length)
{
    if (type == DNS_MESSAGE_GIVE)
        give_received(userdata, payload, length, true);
}

static const struct worker_ops worker_ops = {
    .started = worker_started, .message = worker_said, .message_draining = worker_said_draining};

/* --- life --- */

static int page_init(struct names *names, struct error *error)
{
    names->page_fd = memfd_create("moat-names", MFD_CLOEXEC);
    if (names->page_fd < 0 || ftruncate(names->page_fd, sizeof(*names->page)) < 0)
        return error_set(error, errno, "cannot make the name service's page");
    names->page =
        mmap(NULL, sizeof(*names->page), PROT_READ | PROT_WRITE, MAP_SHARED, names->page_fd, 0);
    if (names->page == MAP_FAILED) {
        names->page = NULL;
        return error_set(error, errno, "cannot map the name service's page");
    }
    return 0;
}

static int upstreams_init(struct names *names, const struct names_config *config,
                          struct error *error)
{
    int r = 0;

    if (config->upstreams.count == 0)
        r = resolv_new(config->loop, config->resolv_conf, upstreams_changed, names, &names->resolv,
                       error);
    else if (ips_copy(&config->upstreams, &names->configured) < 0)
        r = error_set(error, ENOMEM, "out of memory");
    if (r == 0)
        upstreams_read(names);
    return r;
}

static int forwards_init(struct names *names, const struct names_config *config,
                         struct error *error)
{
    names->forwards = calloc(config->n_forwards ? config->n_forwards : 1, sizeof(*names->forwards));
    if (!names->forwards)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; i < config->n_forwards; i++) {
        const struct names_forward *from = &config->forwards[i];
        struct served_forward *forward = &names->forwards[names->n_forwards++];

        memcpy(forward->message.suffix, from->suffix, strlen(from->suffix) + 1);
        if (ips_copy(&from->servers, &forward->servers) < 0)
            return error_set(error, ENOMEM, "out of memory");
        servers_fill(names, &forward->servers, &forward->message.servers);
    }
    return 0;
}

static void config_fill(const struct names_config *config, struct dns_config_message *ret_message)
{
    *ret_message = (struct dns_config_message){
        .ttl_s = config->ttl_s,
        .stale_s = config->stale_s,
        .cache_bytes = config->cache_bytes,
        .max_in_flight = config->max_in_flight,
        .max_connections = config->max_connections,
        .rate = config->rate,
        .rebind_guard = config->rebind_guard,
    };
    memcpy(ret_message->domain, config->domain, strlen(config->domain) + 1);
}

static int names_init(struct names *names, const struct names_config *config, struct error *error)
{
    struct worker_config worker = {
        .loop = config->loop,
        .kind = "dns",
        .run_dir = config->run_dir,
        .uid = config->uid,
        .gid = config->gid,
    };
    int r;

    if (!name_is_dns(config->domain))
        return error_set_field(error, "domain", "\"%s\" is not a domain name", config->domain);
    config_fill(config, &names->config);
    names->fdstore = config->fdstore;
    names->loop = config->loop;
    names->give = config->give;
    names->userdata = config->userdata;
    r = page_init(names, error);
    if (r == 0)
        r = upstreams_init(names, config, error);
    if (r == 0)
        r = forwards_init(names, config, error);
    if (r == 0 && config->resolved)
        names->resolved = resolved_new(config->loop, names->config.domain);
    if (r == 0)
        r = worker_new(&worker, &worker_ops, names, &names->worker, error);
    return r;
}

int names_new(const struct names_config *config, struct names **ret_names, struct error *error)
{
    struct names *names = calloc(1, sizeof(*names));
    int r;

    if (!names)
        return error_set(error, ENOMEM, "cannot start the name service");
    names->page_fd = -1;
    r = names_init(names, config, error);
    if (r < 0) {
        names_free(names, false);
        return r;
    }
    upstreams_log(names);
    *ret_names = names;
    return 0;
}

static void network_unbind(struct served_network *network)
{
    for (unsigned i = 0; i < DNS_SOCKETS_COUNT; i++) {
        if (network->fds[i] >= 0)
            close(network->fds[i]);
        network->fds[i] = -1;
    }
}

static void network_free(struct served_network *network)
{
    if (!network)
        return;
    network_unbind(network);
    ips_deinit(&network->servers);
    free(network);
}

DEFINE_CLEANUP(struct served_network, network_free)

void names_free(struct names *names, bool keep_running)
{
    if (!names)
        return;
    worker_free(names->worker, keep_running);
    resolv_free(names->resolv);
    resolved_free(names->resolved);
    while (names->networks) {
        struct served_network *next = names->networks->next;

        network_free(names->networks);
        names->networks = next;
    }
    table_free(&names->endpoints);
    table_free(&names->records);
    loop_timer_free(names->log_timer);
    query_log_free(names->log);
    for (size_t i = 0; i < names->n_forwards; i++)
        ips_deinit(&names->forwards[i].servers);
    free(names->forwards);
    for (uint32_t i = 0; names->permits.slots && i <= names->permits.mask; i++)
        permit_parts_free(names->permits.slots[i].item);
    dns_table_deinit(&names->permits);
    ips_deinit(&names->configured);
    ips_deinit(&names->upstreams);
    if (names->page)
        munmap(names->page, sizeof(*names->page));
    if (names->page_fd >= 0)
        close(names->page_fd);
    free(names);
}

/* --- networks --- */

static struct served_network **network_find(struct names *names, int64_t id)
{
    struct served_network **link = &names->networks;

    while (*link && (*link)->message.id != id)
        link = &(*link)->next;
    return link;
}

/* "moat-dns-udp-10.88.0.1"; a name there has no colons. */
static const char *stored_name(const struct served_network *network, unsigned place,
                               char name[FDSTORE_NAME_MAX])
{
    const struct ip *ip = place < 2 ? &network->message.gateway : &network->message.gateway6;
    char text[IP_TEXT_MAX];

    ip_format(ip, text);
    for (char *at = text; *at; at++)
        if (*at == ':')
            *at = '_';
    snprintf(name, FDSTORE_NAME_MAX, FDSTORE_PREFIX "dns-%s-%s", place % 2 ? "tcp" : "udp", text);
    return name;
}

static bool has_socket_of(const struct served_network *network, const struct ip *ip, unsigned place)
{
    const struct ip *own = place < 2 ? &network->message.gateway : &network->message.gateway6;

    return network->fds[place] >= 0 && ip_equal(ip, own);
}

/* The sockets that the network has and `successor` (NULL: none) has not are forgotten. */
static void stored_remove(const struct names *names, const struct served_network *network,
                          const struct served_network *successor)
{
    char name[FDSTORE_NAME_MAX];

    for (unsigned i = 0; i < DNS_SOCKETS_COUNT; i++) {
        const struct ip *ip = i < 2 ? &network->message.gateway : &network->message.gateway6;

        if (network->fds[i] >= 0 && !(successor && has_socket_of(successor, ip, i)))
            fdstore_remove(names->fdstore, stored_name(network, i, name));
    }
}

/* The socket for one place: the former network's where the address is the same, that which the
 * service manager kept, the former worker's, or a new one. */
static int network_socket(struct names *names, struct served_network *network, unsigned place,
                          struct served_network *former, struct error *error)
{
    uint8_t protocol = place % 2 ? IPPROTO_TCP : IPPROTO_UDP;
    const struct ip *ip = place < 2 ? &network->message.gateway : &network->message.gateway6;
    const struct ip *former_ip = NULL;
    char name[FDSTORE_NAME_MAX];
    int r = 0;

    if (former)
        former_ip = place < 2 ? &former->message.gateway : &former->message.gateway6;
    if (former && former->fds[place] >= 0 && ip_equal(ip, former_ip)) {
        network->fds[place] = fcntl(former->fds[place], F_DUPFD_CLOEXEC, 0);
        return network->fds[place] < 0 ? error_set(error, errno, "cannot keep a socket") : 0;
    }
    network->fds[place] = fdstore_take(names->fdstore, stored_name(network, place, name));
    if (network->fds[place] >= 0)
        return 0;
    network->fds[place] = worker_inherited_take(names->worker, protocol, ip, DNS_PORT);
    if (network->fds[place] < 0)
        r = names_socket_bind(protocol, ip, DNS_PORT, &network->fds[place], error);
    if (r == 0)
        fdstore_put(names->fdstore, name, network->fds[place]);
    return r;
}

/* All sockets, or none. */
static int network_bind_all(struct names *names, struct served_network *network,
                            struct served_network *former, struct error *error)
{
    for (unsigned i = 0; i < DNS_SOCKETS_COUNT; i++) {
        const struct ip *ip = i < 2 ? &network->message.gateway : &network->message.gateway6;
        int r = ip_is_set(ip) ? network_socket(names, network, i, former, error) : 0;

        if (r < 0) {
            network_unbind(network);
            return r;
        }
    }
    return 0;
}

/* The worker holds the sockets of a network that was removed until it has read of it. */
static int network_bind(struct names *names, struct served_network *network,
                        struct served_network *former, struct error *error)
{
    int r = network_bind_all(names, network, former, error);

    if (r == 0 || error->reason != REASON_PORT_IN_USE ||
        worker_sync(names->worker, SYNC_TIMEOUT_MS) < 0)
        return r;
    *error = ERROR_INIT;
    return network_bind_all(names, network, former, error);
}

/* Without sockets. NULL: no memory. */
static struct served_network *network_new(const struct names *names, const struct network *network)
{
    struct served_network *served = calloc(1, sizeof(*served));

    if (!served)
        return NULL;
    memset(served->fds, 0xff, sizeof(served->fds));
    if (ips_copy(&network->dns_servers, &served->servers) < 0) {
        free(served);
        return NULL;
    }
    served->message.id = network->id;
    served->message.gateway = network->gateway;
    served->message.gateway6 = network->gateway6;
    served->message.subnet = network->subnet;
    served->message.subnet6 = network->subnet6;
    served->message.internal = network->internal;
    memcpy(served->message.name, network->name, strlen(network->name));
    servers_fill(names, &served->servers, &served->message.upstreams);
    return served;
}

static bool sockets_equal(const struct served_network *network, const struct served_network *former)
{
    for (unsigned i = 0; i < DNS_SOCKETS_COUNT; i++)
        if ((network->fds[i] >= 0) != (former->fds[i] >= 0))
            return false;
    return ip_equal(&network->message.gateway, &former->message.gateway) &&
           ip_equal(&network->message.gateway6, &former->message.gateway6);
}

/* Number and sockets left out. */
static bool network_equal(const struct served_network *a, const struct served_network *b)
{
    return cidr_equal(&a->message.subnet, &b->message.subnet) &&
           cidr_equal(&a->message.subnet6, &b->message.subnet6) &&
           ip_equal(&a->message.gateway, &b->message.gateway) &&
           ip_equal(&a->message.gateway6, &b->message.gateway6) &&
           a->message.internal == b->message.internal &&
           strcmp(a->message.name, b->message.name) == 0 && ips_equal(&a->servers, &b->servers) &&
           memcmp(&a->message.upstreams, &b->message.upstreams, sizeof(a->message.upstreams)) == 0;
}

int names_network_add(struct names *names, const struct network *network, struct error *error)
{
    _cleanup_(network_freep) struct served_network *served = NULL;
    struct served_network **link = network_find(names, network->id);
    struct served_network *former = *link;
    bool same_sockets;
    int r = fault_point("names.network", error);

    if (r < 0)
        return r;
    served = network_new(names, network);
    if (!served)
        return error_set(error, ENOMEM, "out of memory");
    r = network->dns ? network_bind(names, served, former, error) : 0;
    if (r < 0)
        return r;
    if (network->dns)
        resolved_network_set(names->resolved, network);
    same_sockets = former && sockets_equal(served, former);
    if (same_sockets && network_equal(served, former))
        return 0;
    r = network_send(names, served, !same_sockets, error);
    if (r < 0)
        return r;
    if (former)
        stored_remove(names, former, served);
    served->next = former ? former->next : NULL;
    *link = TAKE_PTR(served);
    network_free(former);
    if (!same_sockets)
        gateways_changed(names);
    return 0;
}

void names_network_remove(struct names *names, int64_t network_id)
{
    struct served_network **link = network_find(names, network_id);
    struct served_network *network = *link;
    struct dns_remove_message message = {.id = network_id};

    if (!network)
        return;
    *link = network->next;
    stored_remove(names, network, NULL);
    resolved_network_remove(names->resolved, network_id);
    remove_send(names, DNS_MESSAGE_NETWORK_REMOVE, network_id);
    worker_send_draining(names->worker, DNS_MESSAGE_NETWORK_REMOVE, &message, sizeof(message));
    network_free(network);
    gateways_changed(names);
}

/* --- endpoints --- */

static size_t endpoint_names(const struct guest *guest, const struct endpoint *endpoint,
                             const char *ret_names[DNS_ENDPOINT_NAMES], size_t *ret_length)
{
    size_t count = 0;

    ret_names[count++] = guest->name;
    for (size_t i = 0; i < endpoint->aliases.count && count < DNS_ENDPOINT_NAMES; i++)
        ret_names[count++] = endpoint->aliases.items[i];
    *ret_length = 0;
    for (size_t i = 0; i < count; i++)
        *ret_length += strlen(ret_names[i]) + 1;
    return count;
}

static struct kept_message *endpoint_message(const struct names *names, const struct guest *guest,
                                             const struct endpoint *endpoint)
{
    const char *texts[DNS_ENDPOINT_NAMES];
    size_t length;
    size_t count = endpoint_names(guest, endpoint, texts, &length);
    struct kept_message *kept =
        kept_new(endpoint->id, DNS_MESSAGE_ENDPOINT, sizeof(struct dns_endpoint_message) + length);
    struct dns_endpoint_message *message;
    char *at;

    if (!kept)
        return NULL;
    if (ips_copy(&guest->dns, &kept->servers) < 0) {
        kept_free(kept);
        return NULL;
    }
    message = (struct dns_endpoint_message *)kept->payload;
    message->id = endpoint->id;
    message->guest_id = guest->id;
    message->network_id = endpoint->network_id;
    message->ip = endpoint->ip;
    message->ip6 = endpoint->ip6;
    message->n_names = (uint16_t)count;
    message->names_length = (uint16_t)length;
    servers_fill(names, &kept->servers, &message->upstreams);
    at = message->names;
    for (size_t i = 0; i < count; i++)
        at = (char *)memcpy(at, texts[i], strlen(texts[i]) + 1) + strlen(texts[i]) + 1;
    return kept;
}

int names_endpoint_add(struct names *names, const struct guest *guest,
                       const struct endpoint *endpoint, struct error *error)
{
    _cleanup_(kept_freep) struct kept_message *kept = NULL;
    int r = fault_point("names.endpoint", error);

    if (r < 0)
        return r;
    kept = endpoint_message(names, guest, endpoint);
    if (!kept)
        return error_set(error, ENOMEM, "out of memory");
    r = kept_add(names, &names->endpoints, kept, error);
    if (r < 0)
        return r;
    (void)TAKE_PTR(kept);
    return 0;
}

void names_endpoint_remove(struct names *names, int64_t endpoint_id)
{
    if (kept_remove(&names->endpoints, endpoint_id))
        remove_send(names, DNS_MESSAGE_ENDPOINT_REMOVE, endpoint_id);
}

/* --- static records --- */

int names_record_add(struct names *names, const struct dns_record *record, struct error *error)
{
    uint8_t rdata[RECORD_RDATA_MAX];
    uint16_t length = record_rdata_build(record->type, record->value, names->config.domain, rdata);
    _cleanup_(kept_freep) struct kept_message *kept = NULL;
    struct dns_record_message *message;
    int r = fault_point("names.record", error);

    if (r < 0)
        return r;
    if (length == 0) /* possible after a change of the domain to a longer one */
        return error_set(error, 0, "\"%.80s\" of %s is too long below %s", record->value,
                         record->name, names->config.domain);
    kept = kept_new(record->id, DNS_MESSAGE_RECORD, sizeof(*message) + length);
    if (!kept)
        return error_set(error, ENOMEM, "out of memory");
    message = (struct dns_record_message *)kept->payload;
    message->id = record->id;
    message->network_id = record->network_id;
    message->type = record->type;
    message->rdata_length = length;
    memcpy(message->name, record->name, strlen(record->name));
    memcpy(message->rdata, rdata, length);
    r = kept_add(names, &names->records, kept, error);
    if (r < 0)
        return r;
    (void)TAKE_PTR(kept);
    return 0;
}

void names_record_remove(struct names *names, int64_t record_id)
{
    if (kept_remove(&names->records, record_id))
        remove_send(names, DNS_MESSAGE_RECORD_REMOVE, record_id);
}

/* --- start-up, and what others ask --- */

void names_settled(struct names *names)
{
    struct error error = ERROR_INIT;

    worker_inherited_close(names->worker);
    fdstore_settle(names->fdstore);
    if (names->settled)
        return;
    names->settled = true;
    if (ready_send(names, &error) < 0)
        log_error("the name worker can't be told to begin: %s", error.text);
}

bool names_is_resolved(const struct names *names)
{
    return resolved_is_served(names->resolved);
}

/* --- the query log --- */

static void log_expired(void *userdata)
{
    struct names *names = userdata;
    struct error error = ERROR_INIT;

    query_log_free(names->log);
    names->log = NULL;
    if (log_send(names, &error) < 0)
        log_error("the name worker can't be told of a change: %s", error.text);
}

static int log_begin(struct names *names, struct error *error)
{
    int r;

    if (!names->log_timer)
        names->log_timer = loop_timer_new(names->loop, log_expired, names);
    names->log = query_log_new();
    if (!names->log || !names->log_timer)
        r = error_set(error, ENOMEM, "query log");
    else
        r = log_send(names, error);
    if (r < 0) {
        query_log_free(names->log);
        names->log = NULL;
    }
    return r;
}

int names_log_read(struct names *names, uint64_t since, struct dns_log_result *ret_result,
                   struct error *error)
{
    bool began = !names->log;
    int r = began ? log_begin(names, error) : 0;

    if (r == 0)
        r = query_log_read(names->log, since, ret_result, error);
    if (r < 0)
        return r;
    loop_timer_start(names->log_timer, LOG_TIMEOUT_MS);
    ret_result->began = began;
    return 0;
}

/* --- what others ask --- */

int names_flush(struct names *names, const char *name, struct error *error)
{
    struct dns_flush_message message = {0};

    memcpy(message.name, name, strlen(name));
    return message_send(names, DNS_MESSAGE_FLUSH, &message.message, sizeof(message), NULL, 0,
                        error);
}

const struct ips *names_upstreams(const struct names *names)
{
    return &names->upstreams;
}

void names_status_get(const struct names *names, struct names_status *ret_status)
{
    const struct dns_stats_message *stats = &names->stats;

    *ret_status = (struct names_status){
        .pid = worker_pid(names->worker),
        .counters =
            {
                .queries = stats->queries,
                .local = stats->local,
                .cached = stats->cached,
                .missed = stats->missed,
                .forwarded = stats->forwarded,
                .failed = stats->failed,
                .stale = stats->stale,
                .refused = stats->refused,
                .shed = stats->shed,
                .cache_entries = stats->cache_entries,
                .cache_bytes = stats->cache_bytes,
            },
    };
}
