/* SPDX-License-Identifier: GPL-2.0-or-later */
/* absent: no bus, or nobody on it who is systemd-resolved in our namespace. The bus is tried again
 * every few seconds, and its NameOwnerChanged says when systemd-resolved comes or goes.
 *
 * asked: its process is being asked for; the answer says whether it is of our namespace.
 *
 * present: each link is told. The timer compares interface numbers: a bridge that was made anew has
 * another one. */
#include "names/resolved.h"

#ifdef MOAT_HAVE_SYSTEMD

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "base/log.h"
#include "names/same_host.h"

#define SERVICE "org.freedesktop.resolve1"
#define PATH "/org/freedesktop/resolve1"
#define INTERFACE "org.freedesktop.resolve1.Manager"
#define CHECK_INTERVAL_MS 3000
#define ZONES_MAX 160 /* reverse zones of one prefix: 2^7 octets, or 2^3 nibbles */

struct served_link {
    struct served_link *next;
    int64_t network_id;
    char bridge[IFNAMSIZ];
    struct ip gateways[2];
    struct cidr subnets[2];
    int ifindex; /* that was told; 0: none */
};

struct resolved {
    struct loop *loop;
    const char *domain;
    sd_bus *bus;
    struct loop_io *io;
    struct loop_timer *bus_timer; /* as sd-bus asks for it */
    struct loop_timer *timer;
    struct served_link *links;
    bool present;
};

static void bus_arm(struct resolved *resolved);

/* --- telling --- */

static int call_answered(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    (void)userdata;
    (void)error;
    if (sd_bus_message_is_method_error(message, NULL))
        log_warning("systemd-resolved refused: %s", sd_bus_message_get_error(message)->message);
    return 0;
}

static int call_new(struct resolved *resolved, const char *member, int ifindex,
                    sd_bus_message **ret_call)
{
    int r =
        sd_bus_message_new_method_call(resolved->bus, ret_call, SERVICE, PATH, INTERFACE, member);

    if (r >= 0)
        r = sd_bus_message_set_auto_start(*ret_call, false);
    return r < 0 ? r : sd_bus_message_append(*ret_call, "i", ifindex);
}

static int call_send(struct resolved *resolved, sd_bus_message *call)
{
    return sd_bus_call_async(resolved->bus, NULL, call, call_answered, resolved, 0);
}

static int append_servers(sd_bus_message *call, const struct served_link *link)
{
    int r = sd_bus_message_open_container(call, 'a', "(iay)");

    for (size_t i = 0; r >= 0 && i < 2; i++) {
        const struct ip *ip = &link->gateways[i];

        if (!ip_is_set(ip))
            continue;
        r = sd_bus_message_open_container(call, 'r', "iay");
        if (r >= 0)
            r = sd_bus_message_append(call, "i", (int)ip->family);
        if (r >= 0)
            r = sd_bus_message_append_array(call, 'y', ip->bytes, ip->family == AF_INET6 ? 16 : 4);
        if (r >= 0)
            r = sd_bus_message_close_container(call);
    }
    return r < 0 ? r : sd_bus_message_close_container(call);
}

/* A prefix that ends within an octet or nibble is several zones. */
static int append_zones(sd_bus_message *call, const struct cidr *subnet)
{
    unsigned each = subnet->ip.family == AF_INET6 ? 4 : 8;
    unsigned parts = (subnet->prefix + each - 1) / each;
    unsigned count = 1u << (parts * each - subnet->prefix);
    struct ip ip = subnet->ip;
    int r = 0;

    for (unsigned i = 0; r >= 0 && i < count && i < ZONES_MAX; i++) {
        char zone[IP_REVERSE_MAX];

        r = sd_bus_message_append(call, "(sb)", ip_reverse_format(&ip, parts, zone), 1);
        if (each == 8)
            ip.bytes[parts - 1]++;
        else
            ip.bytes[(parts - 1) / 2] += (parts - 1) % 2 ? 1 : 16;
    }
    return r;
}

/* Routing domains only: names are not completed with them. */
static int append_domains(sd_bus_message *call, const struct resolved *resolved,
                          const struct served_link *link)
{
    int r = sd_bus_message_open_container(call, 'a', "(sb)");

    if (r >= 0)
        r = sd_bus_message_append(call, "(sb)", resolved->domain, 1);
    for (size_t i = 0; r >= 0 && i < 2; i++)
        if (cidr_is_set(&link->subnets[i]) && link->subnets[i].prefix > 0)
            r = append_zones(call, &link->subnets[i]);
    return r < 0 ? r : sd_bus_message_close_container(call);
}

static int call_servers(struct resolved *resolved, const struct served_link *link)
{
    sd_bus_message *call = NULL;
    int r = call_new(resolved, "SetLinkDNS", link->ifindex, &call);

    if (r >= 0)
        r = append_servers(call, link);
    if (r >= 0)
        r = call_send(resolved, call);
    sd_bus_message_unref(call);
    return r;
}

static int call_domains(struct resolved *resolved, const struct served_link *link)
{
    sd_bus_message *call = NULL;
    int r = call_new(resolved, "SetLinkDomains", link->ifindex, &call);

    if (r >= 0)
        r = append_domains(call, resolved, link);
    if (r >= 0)
        r = call_send(resolved, call);
    sd_bus_message_unref(call);
    return r;
}

/* Nothing else is asked there. */
static int call_default_route(struct resolved *resolved, const struct served_link *link)
{
    sd_bus_message *call = NULL;
    int r = call_new(resolved, "SetLinkDefaultRoute", link->ifindex, &call);

    if (r >= 0)
        r = sd_bus_message_append(call, "b", 0);
    if (r >= 0)
        r = call_send(resolved, call);
    sd_bus_message_unref(call);
    return r;
}

static void link_tell(struct resolved *resolved, struct served_link *link)
{
    int r;

    link->ifindex = (int)if_nametoindex(link->bridge);
    if (link->ifindex == 0)
        return; /* the timer sees when it is there */
    r = call_servers(resolved, link);
    if (r >= 0)
        r = call_domains(resolved, link);
    if (r >= 0)
        r = call_default_route(resolved, link);
    if (r < 0)
        log_warning("systemd-resolved can't be told of %s: %s", link->bridge, strerror(-r));
}

static void link_revert(struct resolved *resolved, const struct served_link *link)
{
    sd_bus_message *call = NULL;
    int r;

    /* With a bridge that is gone went its settings. */
    if (link->ifindex == 0 || (int)if_nametoindex(link->bridge) != link->ifindex)
        return;
    r = call_new(resolved, "RevertLink", link->ifindex, &call);
    if (r >= 0)
        r = sd_bus_send(resolved->bus, call, NULL);
    sd_bus_message_unref(call);
    if (r < 0)
        log_warning("systemd-resolved can't be told of %s: %s", link->bridge, strerror(-r));
}

static void links_tell(struct resolved *resolved)
{
    for (struct served_link *link = resolved->links; link; link = link->next)
        link_tell(resolved, link);
}

/* --- who is there --- */

static int owner_known(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    struct resolved *resolved = userdata;
    uint32_t pid;

    (void)error;
    resolved->present = !sd_bus_message_is_method_error(message, NULL) &&
                        sd_bus_message_read(message, "u", &pid) >= 0 && process_is_of_our_host(pid);
    if (!resolved->present)
        return 0;
    log_info("systemd-resolved asks us for names below %s", resolved->domain);
    links_tell(resolved);
    return 0;
}

static void owner_ask(struct resolved *resolved)
{
    resolved->present = false;
    for (struct served_link *link = resolved->links; link; link = link->next)
        link->ifindex = 0;
    (void)sd_bus_call_method_async(
        resolved->bus, NULL, "org.freedesktop.DBus", "/org/freedesktop/DBus",
        "org.freedesktop.DBus", "GetConnectionUnixProcessID", owner_known, resolved, "s", SERVICE);
}

static int owner_changed(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    (void)message;
    (void)error;
    owner_ask(userdata);
    return 0;
}

/* --- the bus --- */

static void bus_close(struct resolved *resolved)
{
    loop_io_free(resolved->io);
    resolved->io = NULL;
    loop_timer_stop(resolved->bus_timer);
    resolved->bus = sd_bus_close_unref(resolved->bus);
    resolved->present = false;
}

static void bus_process(struct resolved *resolved)
{
    int r;

    do
        r = sd_bus_process(resolved->bus, NULL);
    while (r > 0);
    if (r < 0 || sd_bus_is_open(resolved->bus) <= 0)
        bus_close(resolved);
    else
        bus_arm(resolved);
}

static void bus_ready(void *userdata, unsigned events)
{
    (void)events;
    bus_process(userdata);
}

static void bus_timer_expired(void *userdata)
{
    bus_process(userdata);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void bus_arm(struct resolved *resolved)
{
    int events = sd_bus_get_events(resolved->bus);
    uint64_t at_us;

    if (events >= 0)
        loop_io_set_events(resolved->io,
                           (events & 1 ? LOOP_READ : 0u) | (events & 4 ? LOOP_WRITE : 0u));
    loop_timer_stop(resolved->bus_timer);
    if (sd_bus_get_timeout(resolved->bus, &at_us) >= 0 && at_us != UINT64_MAX) {
        uint64_t now = now_us();

        loop_timer_start(resolved->bus_timer, at_us > now ? (at_us - now) / 1000 + 1 : 0);
    }
}

static void bus_open(struct resolved *resolved)
{
    int r = sd_bus_open_system(&resolved->bus);

    if (r < 0) {
        resolved->bus = NULL;
        return;
    }
    r = sd_bus_add_match_async(resolved->bus, NULL,
                               "type='signal',sender='org.freedesktop.DBus',"
                               "path='/org/freedesktop/DBus',interface='org.freedesktop.DBus',"
                               "member='NameOwnerChanged',arg0='" SERVICE "'",
                               owner_changed, NULL, resolved);
    resolved->io =
        loop_io_new(resolved->loop, sd_bus_get_fd(resolved->bus), LOOP_READ, bus_ready, resolved);
    if (r < 0 || !resolved->io) {
        bus_close(resolved);
        return;
    }
    owner_ask(resolved);
    bus_process(resolved);
}

static void check_due(void *userdata)
{
    struct resolved *resolved = userdata;

    if (!resolved->bus)
        bus_open(resolved);
    for (struct served_link *link = resolved->links; resolved->present && link; link = link->next)
        if ((int)if_nametoindex(link->bridge) != link->ifindex)
            link_tell(resolved, link);
    if (resolved->bus)
        bus_arm(resolved);
    loop_timer_start(resolved->timer, CHECK_INTERVAL_MS);
}

/* --- interface --- */

struct resolved *resolved_new(struct loop *loop, const char *domain)
{
    struct resolved *resolved = calloc(1, sizeof(*resolved));

    if (!resolved)
        return NULL;
    resolved->loop = loop;
    resolved->domain = domain;
    resolved->timer = loop_timer_new(loop, check_due, resolved);
    resolved->bus_timer = loop_timer_new(loop, bus_timer_expired, resolved);
    if (!resolved->timer || !resolved->bus_timer) {
        resolved_free(resolved);
        return NULL;
    }
    loop_timer_start(resolved->timer, 0);
    return resolved;
}

void resolved_free(struct resolved *resolved)
{
    if (!resolved)
        return;
    if (resolved->bus) {
        (void)sd_bus_flush(resolved->bus); /* what was taken back at the end */
        bus_close(resolved);
    }
    loop_timer_free(resolved->bus_timer);
    loop_timer_free(resolved->timer);
    while (resolved->links) {
        struct served_link *next = resolved->links->next;

        free(resolved->links);
        resolved->links = next;
    }
    free(resolved);
}

static struct served_link **link_find(struct resolved *resolved, int64_t network_id)
{
    struct served_link **link = &resolved->links;

    while (*link && (*link)->network_id != network_id)
        link = &(*link)->next;
    return link;
}

void resolved_network_set(struct resolved *resolved, const struct network *network)
{
    struct served_link **link;

    if (!resolved)
        return;
    link = link_find(resolved, network->id);
    if (!*link)
        *link = calloc(1, sizeof(**link));
    if (!*link) {
        log_error("systemd-resolved is not told of %s: out of memory", network->bridge);
        return;
    }
    (*link)->network_id = network->id;
    memcpy((*link)->bridge, network->bridge, sizeof((*link)->bridge));
    (*link)->gateways[0] = network->gateway;
    (*link)->gateways[1] = network->gateway6;
    (*link)->subnets[0] = network->subnet;
    (*link)->subnets[1] = network->subnet6;
    if (resolved->present) {
        link_tell(resolved, *link);
        bus_arm(resolved);
    }
}

void resolved_network_remove(struct resolved *resolved, int64_t network_id)
{
    struct served_link **link = resolved ? link_find(resolved, network_id) : NULL;
    struct served_link *gone = link ? *link : NULL;

    if (!gone)
        return;
    *link = gone->next;
    if (resolved->present) {
        link_revert(resolved, gone);
        bus_arm(resolved);
    }
    free(gone);
}

bool resolved_is_served(const struct resolved *resolved)
{
    return resolved && resolved->present;
}

#else

struct resolved *resolved_new(struct loop *loop, const char *domain)
{
    (void)loop;
    (void)domain;
    return NULL;
}

void resolved_free(struct resolved *resolved)
{
    (void)resolved;
}

void resolved_network_set(struct resolved *resolved, const struct network *network)
{
    (void)resolved;
    (void)network;
}

void resolved_network_remove(struct resolved *resolved, int64_t network_id)
{
    (void)resolved;
    (void)network_id;
}

bool resolved_is_served(const struct resolved *resolved)
{
    (void)resolved;
    return false;
}

#endif
