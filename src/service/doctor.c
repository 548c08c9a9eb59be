/* SPDX-License-Identifier: GPL-2.0-or-later */
/* system.doctor: what commonly breaks container networking on a host, each with its remedy. Looks
 * only, changes nothing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/yield.h"
#include "service/doctor.h"
#include "service/private.h"

struct checks {
    struct check_result *items;
    size_t count;
    bool failed; /* out of memory */
};

void check_add(struct checks *checks, const char *name, bool ok, const char *detail,
               const char *remedy)
{
    struct check_result *items = reallocarray(checks->items, checks->count + 1, sizeof(*items));
    struct check_result *item;

    if (!items) {
        checks->failed = true;
        return;
    }
    checks->items = items;
    item = &items[checks->count++];
    *item = (struct check_result){.ok = ok};
    snprintf(item->name, sizeof(item->name), "%s", name);
    snprintf(item->detail, sizeof(item->detail), "%s", detail);
    snprintf(item->remedy, sizeof(item->remedy), "%s", ok ? "" : remedy);
}

static void check_forwarding_of(struct service *service, uint8_t family, const char *name,
                                const char *key, struct checks *checks)
{
    struct error error = ERROR_INIT;
    char value[SYSCTL_VALUE_MAX];
    char detail[128];
    char remedy[160];
    bool needed = true;
    bool on = sysctl_get(key, value, &error) == 0 && strcmp(value, "1") == 0;

    if (store_network_forwards(service->store, family, &needed, &error) >= 0 && !needed)
        return;
    snprintf(detail, sizeof(detail), on ? "%s is 1" : "%s is not 1: guests reach nothing outside",
             key);
    snprintf(remedy, sizeof(remedy), "set %s = 1, and look in /etc/sysctl.d for who turns it off",
             key);
    check_add(checks, name, on, detail, remedy);
}

static void check_forwarding(struct service *service, struct checks *checks)
{
    check_forwarding_of(service, AF_INET, "ip_forward", "net.ipv4.ip_forward", checks);
    check_forwarding_of(service, AF_INET6, "ip6_forward", "net.ipv6.conf.all.forwarding", checks);
}

static void check_table(struct service *service, struct checks *checks)
{
    bool owned = nat_is_owned(service->nat);

    check_add(
        checks, "nftables", true,
        owned
            ? "the table inet moat is owned: a foreign flush passes it by"
            : "this kernel has no owned persistent tables: a foreign flush is noticed and repaired",
        "");
}

static void check_log(struct service *service, struct checks *checks)
{
    bool told = drops_are_told(service);

    check_add(checks, "log", told,
              told ? "events tell of what is dropped"
                   : "another program listens to moatd's NFLOG group: events don't tell of what is "
                     "dropped",
              "give that program (ulogd?) another group than 28013, and start moatd again");
}

/* An address and its route are one finding. */
static void add_overlap(char *found, size_t size, const struct network *network,
                        const struct link_prefix *prefix)
{
    const struct cidr *subnet =
        prefix->cidr.ip.family == AF_INET ? &network->subnet : &network->subnet6;
    const struct cidr masked = cidr_mask(&prefix->cidr);
    char item[256];
    char subnet_text[CIDR_TEXT_MAX];
    char other[CIDR_TEXT_MAX];

    if (prefix->ours || !prefix_collides(prefix, network))
        return;
    snprintf(item, sizeof(item), "network %s (%s) overlaps %s on %s", network->name,
             cidr_format(subnet, subnet_text), cidr_format(&masked, other),
             prefix->interface[0] ? prefix->interface : "a route");
    if (!strstr(found, item))
        snprintf(found + strlen(found), size - strlen(found), "%s%s", found[0] ? "; " : "", item);
}

/* The daemon tries again by itself: the remedy is for who wants the port for the other program. */
static void check_ports(struct service *service, struct checks *checks)
{
    const char *why;
    size_t count = waiting_count(service, &why);
    char detail[512] = "every published port is served";

    if (count > 0)
        snprintf(detail, sizeof(detail), "%zu published %s not served: %s%s", count,
                 count == 1 ? "port is" : "ports are", why,
                 count == 1 ? "" : ", … (see moat port ls)");
    check_add(
        checks, "ports", count == 0, detail,
        "stop that program, and moat takes the port over within seconds; or `moat port rm` it");
}

/* It always exists, so it can't be made anew. */
#define MOVE_DEFAULT                                                                            \
    "detach the guests that are on it and start moatd again: it moves to a free subnet, or to " \
    "default_subnet in moat.conf; `moat net inspect " DEFAULT_NETWORK "` lists them"

static void check_overlaps(struct service *service, struct checks *checks)
{
    struct network *networks = NULL;
    struct link_prefix *prefixes = NULL;
    struct error error = ERROR_INIT;
    size_t n_networks = 0;
    size_t n_prefixes = 0;
    char found[sizeof(((struct check_result *)0)->detail)] = "";
    bool failed = false;

    if (store_network_list(service->store, &networks, &n_networks, &error) < 0 ||
        prefixes_list(service, &prefixes, &n_prefixes, &error) < 0) {
        snprintf(found, sizeof(found), "%.500s", error.text);
        failed = true;
    }
    for (size_t i = 0; i < n_networks; i++) {
        for (size_t j = 0; !failed && j < n_prefixes; j++)
            add_overlap(found, sizeof(found), &networks[i], &prefixes[j]);
        network_deinit(&networks[i]);
    }
    free(networks);
    free(prefixes);
    check_add(checks, "subnets", !found[0],
              found[0] ? found : "no subnet of a network is used elsewhere on this host",
              strstr(found, "network " DEFAULT_NETWORK " (")
                  ? MOVE_DEFAULT
                  : "remove the network and create it with another --subnet or --subnet6");
}

static void check_default_subnet(struct service *service, struct checks *checks)
{
    struct error error = ERROR_INIT;
    char detail[512] = "the network " DEFAULT_NETWORK " is as moat.conf says";
    bool pending = false;
    int r = default_network_pending(service, detail, sizeof(detail), &pending, &error);

    check_add(
        checks, "default network", r >= 0 && !pending, r < 0 ? error.text : detail,
        "detach the guests that are on it and start moatd again; `moat net inspect " DEFAULT_NETWORK
        "` lists them");
}

static void check_resolvers(struct service *service, struct checks *checks)
{
    const struct ips *upstreams = names_upstreams(service->names);
    char detail[512];

    snprintf(detail, sizeof(detail),
             upstreams->count ? "%zu in %s"
                              : "%zu nameservers are in %s: guests resolve no outside names",
             upstreams->count, service->config->resolv_conf);
    check_add(checks, "resolvers", upstreams->count > 0, detail,
              "put a `nameserver` line there, or set [dns] upstreams in moat.conf");
}

/* Not having it is no fault. */
static void check_host_names(struct service *service, struct checks *checks)
{
    const struct config *config = service->config;
    struct network network = {0};
    struct error error = ERROR_INIT;
    char gateway[IP_TEXT_MAX] = "";
    char detail[512];

    if (network_find(service, DEFAULT_NETWORK, &network, &error) == 0)
        ip_format(&network.gateway, gateway);
    if (names_is_resolved(service->names))
        snprintf(detail, sizeof(detail), "systemd-resolved asks us for names below %s",
                 config->domain);
    else
        snprintf(detail, sizeof(detail),
                 "the host resolves guests with \"nameserver %s\" and \"search %s\" as the first "
                 "lines of %s",
                 gateway, config->domain, config->resolv_conf);
    check_add(checks, "host names", true, detail, "");
    network_deinit(&network);
}

static void check_workers(struct service *service, struct checks *checks)
{
    struct names_status names;
    pid_t relay = reservations_pid(service->reservations);
    bool names_answers = names_answer(service->names);
    bool relay_answers = reservations_answer(service->reservations);
    char detail[512];

    names_status_get(service->names, &names);
    snprintf(detail, sizeof(detail), "name service: pid %d%s, relay: pid %d%s", names.pid,
             names_answers ? "" : ", does not answer", relay,
             relay_answers ? "" : ", does not answer");
    check_add(
        checks, "workers", names_answers && relay_answers, detail,
        "wait: one that does not answer is replaced within seconds; if it lasts, look into moatd's "
        "log");
}

static void check_name_service(struct service *service, struct checks *checks)
{
    const char *network = "";
    const char *why = "";
    bool waits = nameless_get(service, 0, &network, &why);
    char detail[sizeof(((struct check_result *)0)->detail)];

    snprintf(detail, sizeof(detail),
             waits ? "network %s has none: %s" : "every network has its name service", network,
             why);
    check_add(
        checks, "name service", !waits, detail,
        "stop that program, or let it listen on the host's other addresses only; moat takes the "
        "port within seconds");
}

struct settings {
    char wrong[sizeof(((struct check_result *)0)->detail)];
};

/* 1: right, 0: not. */
static int settings_look(struct link *link, void *subject, struct error *error)
{
    struct settings *settings = subject;

    (void)error;
    return link_settings_check(link, settings->wrong, sizeof(settings->wrong));
}

static void check_settings(struct service *service, struct checks *checks)
{
    struct settings settings = {0};
    struct error none = ERROR_INIT;
    bool right = beside_run(service, settings_look, &settings, &none);

    check_add(
        checks, "settings", right,
        right ? "the settings of our links are as they should be" : settings.wrong,
        "look for who changes it (sysctl.d, a network manager, another daemon): moatd sets it "
        "back, again and again if need be");
}

static void check_repair(struct service *service, struct checks *checks)
{
    const struct strings *failures = &service->failures;
    char detail[sizeof(((struct check_result *)0)->detail)];

    snprintf(detail, sizeof(detail), "everything is as it should be");
    if (failures->count > 0)
        snprintf(detail, sizeof(detail), "%s%s", failures->items[0],
                 failures->count > 1 ? "; and more" : "");
    check_add(
        checks, "repair", failures->count == 0, detail,
        "put right what the kernel refuses: moatd tries again every 10 s, and says in its log what "
        "else fails");
}

static void check_bridges(struct service *service, struct checks *checks)
{
    struct network *networks = NULL;
    struct error error = ERROR_INIT;
    size_t count = 0;
    char detail[512] = "every network has its bridge";
    bool ok = store_network_list(service->store, &networks, &count, &error) >= 0;

    if (!ok)
        snprintf(detail, sizeof(detail), "%.500s", error.text);
    for (size_t i = 0; i < count; i++) {
        if (ok && !link_exists(service->link, networks[i].bridge)) {
            ok = false;
            snprintf(detail, sizeof(detail), "network %s has lost its bridge %s", networks[i].name,
                     networks[i].bridge);
        }
        network_deinit(&networks[i]);
    }
    free(networks);
    check_add(checks, "bridges", ok, detail,
              "look into moatd's log: the repair of a link was refused");
}

int service_doctor(struct service *service, struct check_result **ret_checks, size_t *ret_count,
                   struct error *error)
{
    static void (*const all[])(struct service * service, struct checks * checks) = {
        check_forwarding, check_table,          check_log,          check_forward,  check_input,
        check_overlaps,   check_default_subnet, check_bridges,      check_ports,    check_resolvers,
        check_host_names, check_workers,        check_name_service, check_settings, check_repair,
    };
    struct checks checks = {0};

    yield_hold();
    repair_finish(service); /* what is being put right is no finding */
    yield_release();
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        all[i](service, &checks);
        yield_if_due();
    }
    if (checks.failed) {
        free(checks.items);
        return error_set(error, ENOMEM, "doctor");
    }
    *ret_checks = checks.items;
    *ret_count = checks.count;
    return 0;
}
