/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "names/leases.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "names/packet.h"
#include "worker/dns_table.h"
#include "worker/supervisor.h"

struct kept_port {
    struct dhcp_port_message message;
    int fd;
};

struct leases {
    struct worker *worker;
    struct dns_table ports; /* of struct kept_port, by id */
};

static uint32_t id_hash(int64_t id)
{
    return (uint32_t)(((uint64_t)id * 0x9e3779b97f4a7c15u) >> 32);
}

static bool kept_has_id(const void *item, const void *key)
{
    return ((const struct kept_port *)item)->message.id == *(const int64_t *)key;
}

static struct kept_port *kept_find(const struct leases *leases, int64_t id)
{
    return dns_table_find(&leases->ports, id_hash(id), kept_has_id, &id);
}

static void kept_free(struct kept_port *kept)
{
    if (!kept)
        return;
    if (kept->fd >= 0)
        close(kept->fd);
    free(kept);
}

DEFINE_CLEANUP(struct kept_port, kept_free)

static int port_send(struct leases *leases, const struct kept_port *kept, bool with_socket,
                     struct error *error)
{
    return worker_send(leases->worker, DHCP_MESSAGE_PORT, &kept->message, sizeof(kept->message),
                       &kept->fd, with_socket ? 1 : 0, error);
}

/* --- the worker --- */

static void worker_started(void *userdata)
{
    struct leases *leases = userdata;

    for (uint32_t i = 0; leases->ports.slots && i <= leases->ports.mask; i++) {
        const struct kept_port *kept = leases->ports.slots[i].item;
        struct error error = ERROR_INIT;

        if (kept && port_send(leases, kept, true, &error) < 0)
            log_error("guest %s has no DHCP: %s", kept->message.port.host_name, error.text);
    }
}

static void worker_message(void *userdata, uint16_t type, const void *payload, size_t length)
{
    (void)userdata;
    (void)payload;
    log_debug("ignored a message of the DHCP worker: type %u, %zu bytes", type, length);
}

static const struct worker_ops worker_ops = {.started = worker_started, .message = worker_message};

int leases_new(const struct leases_config *config, struct leases **ret_leases, struct error *error)
{
    struct leases *leases = calloc(1, sizeof(*leases));
    struct worker_config worker = {
        .loop = config->loop,
        .kind = "dhcp",
        .run_dir = config->run_dir,
        .uid = config->uid,
        .gid = config->gid,
    };
    int r;

    if (!leases)
        return error_set(error, ENOMEM, "cannot start the DHCP service");
    r = worker_new(&worker, &worker_ops, leases, &leases->worker, error);
    if (r < 0) {
        leases_free(leases, false);
        return r;
    }
    *ret_leases = leases;
    return 0;
}

void leases_free(struct leases *leases, bool keep_running)
{
    if (!leases)
        return;
    worker_free(leases->worker, keep_running);
    for (uint32_t i = 0; leases->ports.slots && i <= leases->ports.mask; i++)
        kept_free(leases->ports.slots[i].item);
    free(leases->ports.slots);
    free(leases);
}

pid_t leases_pid(const struct leases *leases)
{
    return worker_pid(leases->worker);
}

/* --- ports --- */

static bool is_same_tap(const struct kept_port *former, const struct kept_port *kept)
{
    return former && former->message.interface == kept->message.interface &&
           mac_equal(&former->message.port.mac, &kept->message.port.mac);
}

/* The former one's socket where the tap is the same, the former worker's, or a new one. */
static int port_socket(struct leases *leases, struct kept_port *kept,
                       const struct kept_port *former, struct error *error)
{
    struct ip key = dhcp_socket_key(kept->message.id, kept->message.interface);

    if (is_same_tap(former, kept)) {
        kept->fd = dup(former->fd);
        return kept->fd < 0 ? error_set(error, errno, "cannot keep a socket") : 0;
    }
    kept->fd = worker_inherited_take(leases->worker, IPPROTO_UDP, &key, DHCP_SERVER_PORT);
    if (kept->fd >= 0)
        return 0;
    return packet_socket_open(kept->message.interface, &kept->message.port.mac, &kept->fd, error);
}

static int port_add(struct leases *leases, struct kept_port *kept, struct kept_port *former,
                    struct error *error)
{
    uint32_t hash = id_hash(kept->message.id);
    int r = port_socket(leases, kept, former, error);

    if (r == 0)
        r = port_send(leases, kept, !is_same_tap(former, kept), error);
    if (r < 0)
        return r;
    if (former) {
        dns_table_remove(&leases->ports, hash, former);
        kept_free(former);
    }
    dns_table_add(&leases->ports, hash, kept);
    return 0;
}

int leases_port_set(struct leases *leases, int64_t endpoint_id, const char *interface,
                    const struct dhcp_port *port, struct error *error)
{
    struct kept_port *former = kept_find(leases, endpoint_id);
    _cleanup_(kept_freep) struct kept_port *kept = NULL;
    int r = fault_point("names.lease", error);

    if (r < 0)
        return r;
    kept = calloc(1, sizeof(*kept));
    if (!kept || dns_table_reserve(&leases->ports, 1) < 0)
        return error_set(error, ENOMEM, "cannot serve %s", interface);
    kept->fd = -1;
    kept->message.id = endpoint_id;
    kept->message.interface = if_nametoindex(interface);
    memcpy(&kept->message.port, port, sizeof(*port));
    if (kept->message.interface == 0)
        return error_set(error, errno, "cannot serve %s", interface);
    /* padding that differs only sends it once more
     * NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
    if (former && memcmp(&former->message, &kept->message, sizeof(kept->message)) == 0)
        return 0;
    r = port_add(leases, kept, former, error);
    if (r == 0)
        (void)TAKE_PTR(kept);
    return r;
}

/* The worker closes its socket a moment later: the last close waits for an RCU grace period. */
void leases_port_remove(struct leases *leases, int64_t endpoint_id)
{
    struct kept_port *kept = kept_find(leases, endpoint_id);
    struct dhcp_remove_message message = {.id = endpoint_id};
    struct error error = ERROR_INIT;

    if (!kept)
        return;
    dns_table_remove(&leases->ports, id_hash(endpoint_id), kept);
    if (worker_send(leases->worker, DHCP_MESSAGE_PORT_REMOVE, &message, sizeof(message), NULL, 0,
                    &error) < 0)
        log_error("the DHCP worker can't be told of a change: %s", error.text);
    kept_free(kept);
}

void leases_settled(struct leases *leases)
{
    worker_inherited_close(leases->worker);
}
