/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Do other firewalls let pass what moat promises? For each network their rules are asked about the
 * packets that matter (nat/foreign.h), as a guest of it would send or get them. */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netfilter.h>

#include "base/cleanup.h"
#include "base/yield.h"
#include "nat/foreign.h"
#include "service/doctor.h"
#include "service/private.h"

#define SOME_PORT 40000
#define DNS_PORT 53
#define DHCP_PORT 67
#define DHCP_CLIENT_PORT 68

/* Any address far away. */
static const struct ip far4 = {.family = AF_INET, .bytes = {1, 1, 1, 1}};
static const struct ip far6 = {.family = AF_INET6, .bytes = {0x2a, [15] = 1}};

struct look {
    struct service *service;
    struct foreign *foreign;
    struct network *networks;
    size_t n_networks;
    struct guest *guests;
    size_t n_guests;
    char out[IFNAMSIZ];  /* the way out; "" for none */
    char out6[IFNAMSIZ]; /* of IPv6 */
    /* what was found: the worst, and the first of those */
    struct foreign_answer answer;
    const char *what;
    char network[NAME_MAX_LENGTH + 1];
    struct cidr subnet;
};

static void look_deinit(struct look *look)
{
    for (size_t i = 0; i < look->n_networks; i++)
        network_deinit(&look->networks[i]);
    for (size_t i = 0; i < look->n_guests; i++)
        guest_deinit(&look->guests[i]);
    free(look->networks);
    free(look->guests);
    foreign_free(look->foreign);
}

static int look_init(struct look *look, struct service *service, struct error *error)
{
    int r = foreign_load(service->nat, &look->foreign, error);

    look->service = service;
    if (r >= 0)
        r = store_network_list(service->store, &look->networks, &look->n_networks, error);
    if (r >= 0)
        r = store_guest_list(service->store, &look->guests, &look->n_guests, error);
    if (r >= 0)
        r = link_way_out(service->link, &far4, look->out, error);
    if (r >= 0)
        r = link_way_out(service->link, &far6, look->out6, error);
    return r;
}

static void ask(struct look *look, const struct network *network,
                const struct foreign_packet *packet, const char *what)
{
    struct foreign_answer answer;

    yield_if_due();
    foreign_ask(look->foreign, packet, &answer);
    if (answer.verdict <= look->answer.verdict)
        return;
    look->answer = answer;
    look->what = what;
    look->subnet = packet->source.family == AF_INET6 ? network->subnet6 : network->subnet;
    snprintf(look->network, sizeof(look->network), "%s", network->name);
}

/* A guest as it is seen: its address, and the link that its packets come in by. */
struct place {
    struct ip ip;
    struct ip gateway;
    const char *link;
};

static struct place place_of(const struct network *network, uint8_t family)
{
    const struct ip *gateway = family == AF_INET6 ? &network->gateway6 : &network->gateway;

    return (struct place){ip_add(gateway, 1), *gateway, network->bridge};
}

/* --- what is forwarded --- */

static void ask_out(struct look *look, const struct network *network, const struct place *guest)
{
    bool six = guest->ip.family == AF_INET6;
    struct foreign_packet packet = {
        .hook = NF_INET_FORWARD,
        .source = guest->ip,
        .destination = six ? far6 : far4,
        .protocol = IPPROTO_TCP,
        .source_port = SOME_PORT,
        .destination_port = 443,
    };

    if (!(six ? look->out6 : look->out)[0])
        return;
    snprintf(packet.in, sizeof(packet.in), "%s", guest->link);
    snprintf(packet.out, sizeof(packet.out), "%s", six ? look->out6 : look->out);
    ask(look, network, &packet, "the way out of guests");
}

static void ask_in(struct look *look, const struct network *network, const struct place *guest,
                   const struct port *port)
{
    bool six = guest->ip.family == AF_INET6;
    struct foreign_packet packet = {
        .hook = NF_INET_FORWARD,
        .source = six ? far6 : far4,
        .destination = guest->ip,
        .protocol = port->protocol,
        .source_port = SOME_PORT,
        .destination_port = port->guest_port,
        .published = true,
    };

    if (!(six ? look->out6 : look->out)[0])
        return;
    snprintf(packet.in, sizeof(packet.in), "%s", six ? look->out6 : look->out);
    snprintf(packet.out, sizeof(packet.out), "%s", guest->link);
    ask(look, network, &packet, "the way to published ports");
}

static const struct network *network_of(const struct look *look, int64_t id)
{
    for (size_t i = 0; i < look->n_networks; i++)
        if (look->networks[i].id == id)
            return &look->networks[i];
    return NULL;
}

/* A routed port has a link of its own, which rules about the bridge don't speak of. */
static void look_at_guest(struct look *look, const struct guest *guest)
{
    for (size_t i = 0; i < guest->n_endpoints; i++) {
        const struct endpoint *endpoint = &guest->endpoints[i];
        const struct network *network = network_of(look, endpoint->network_id);
        const struct ip *const ips[] = {&endpoint->ip, &endpoint->ip6};

        for (size_t j = 0; network && !network->internal && j < ARRAY_SIZE(ips); j++) {
            const struct place place = {
                .ip = *ips[j],
                .link = endpoint->routed ? endpoint->host_interface : network->bridge,
            };

            if (!ip_is_set(ips[j]))
                continue;
            ask_out(look, network, &place);
            for (size_t k = 0; k < guest->n_ports; k++)
                ask_in(look, network, &place, &guest->ports[k]);
        }
    }
}

static void look_at_forwarding(struct look *look)
{
    for (size_t i = 0; i < look->n_networks; i++) {
        const struct network *network = &look->networks[i];
        const struct place place = place_of(network, AF_INET);
        const struct place place6 = place_of(network, AF_INET6);

        if (!network->internal && cidr_is_set(&network->subnet))
            ask_out(look, network, &place);
        if (!network->internal && cidr_is_set(&network->subnet6))
            ask_out(look, network, &place6);
    }
    for (size_t i = 0; i < look->n_guests; i++)
        look_at_guest(look, &look->guests[i]);
}

/* --- what goes to the host itself --- */

static void ask_host(struct look *look, const struct network *network, const struct place *guest,
                     uint16_t port, uint8_t protocol, const char *what)
{
    struct foreign_packet packet = {
        .hook = NF_INET_LOCAL_IN,
        .source = guest->ip,
        .destination = guest->gateway,
        .protocol = protocol,
        .source_port = port == DHCP_PORT ? DHCP_CLIENT_PORT : SOME_PORT,
        .destination_port = port,
    };

    snprintf(packet.in, sizeof(packet.in), "%s", guest->link);
    ask(look, network, &packet, what);
}

static void ask_names(struct look *look, const struct network *network, const struct place *guest)
{
    if (!network->dns || !ip_is_set(&guest->gateway))
        return;
    ask_host(look, network, guest, DNS_PORT, IPPROTO_UDP, "the name service's port 53");
    ask_host(look, network, guest, DNS_PORT, IPPROTO_TCP, "the name service's port 53 by TCP");
}

static void look_at_endpoint(struct look *look, const struct guest *guest,
                             const struct endpoint *endpoint)
{
    static const struct ip none = {.family = AF_INET};
    static const struct ip everybody = {.family = AF_INET, .bytes = {255, 255, 255, 255}};
    const struct network *network = network_of(look, endpoint->network_id);
    struct place place = {
        .ip = endpoint->ip,
        .link = endpoint->routed ? endpoint->host_interface
                : network        ? network->bridge
                                 : "",
    };

    if (!network || !ip_is_set(&endpoint->ip))
        return;
    place.gateway = network->gateway;
    ask_names(look, network, &place);
    if (guest->kind != KIND_TAP)
        return;
    place.ip = none;
    place.gateway = everybody;
    ask_host(look, network, &place, DHCP_PORT, IPPROTO_UDP, "DHCP of virtual machines");
}

static void look_at_input(struct look *look)
{
    for (size_t i = 0; i < look->n_networks; i++) {
        const struct place place = place_of(&look->networks[i], AF_INET);
        const struct place place6 = place_of(&look->networks[i], AF_INET6);

        if (cidr_is_set(&look->networks[i].subnet))
            ask_names(look, &look->networks[i], &place);
        if (cidr_is_set(&look->networks[i].subnet6))
            ask_names(look, &look->networks[i], &place6);
    }
    for (size_t i = 0; i < look->n_guests; i++)
        for (size_t j = 0; j < look->guests[i].n_endpoints; j++)
            look_at_endpoint(look, &look->guests[i], &look->guests[i].endpoints[j]);
}

/* --- what to do --- */

static void remedy_format(const struct look *look, bool forward, char *text, size_t size)
{
    char subnet[CIDR_TEXT_MAX];
    const char *by = look->answer.by;
    const char *word = look->subnet.ip.family == AF_INET6 ? "ip6" : "ip";
    const char *tables = look->subnet.ip.family == AF_INET6 ? "ip6tables" : "iptables";

    cidr_format(&look->subnet, subnet);
    if (strstr(by, " firewalld "))
        snprintf(text, size,
                 "firewall-cmd --permanent --zone=trusted --add-source=%s && firewall-cmd --reload",
                 subnet);
    else if (strstr(by, " filter FORWARD"))
        snprintf(text, size,
                 "%s -I FORWARD -s %s -j ACCEPT; %s -I FORWARD -d %s -j ACCEPT (with Docker: in "
                 "DOCKER-USER; with ufw: `ufw route allow from %s` and `ufw route allow to %s`)",
                 tables, subnet, tables, subnet, subnet, subnet);
    else if (strstr(by, " filter INPUT"))
        snprintf(
            text, size,
            "%s -I INPUT -s %s -p udp --dport 53 -j ACCEPT, the same with tcp, and for virtual "
            "machines udp port 67 (with ufw: `ufw allow from %s to any port 53`)",
            tables, subnet, subnet);
    else if (forward)
        snprintf(
            text, size,
            "nft insert rule %s %s saddr %s accept; nft insert rule %s %s daddr %s accept; and "
            "the same in the file that it is loaded from",
            by, word, subnet, by, word, subnet);
    else
        snprintf(text, size,
                 "nft insert rule %s %s saddr %s th dport '{ 53, 67 }' accept; and the same in the "
                 "file that it is loaded from",
                 by, word, subnet);
}

static void tell(const struct look *look, const char *name, bool forward, struct checks *checks)
{
    bool drops = look->answer.verdict == FOREIGN_DROPS;
    char detail[512];
    char remedy[512];

    if (look->answer.verdict == FOREIGN_PASSES)
        snprintf(detail, sizeof(detail), "no other firewall stops %s",
                 forward ? "what guests send and get" : "what guests have of this host");
    else if (drops)
        snprintf(detail, sizeof(detail),
                 "%s drops %s, on network %s: an accept of moat's can't undo that", look->answer.by,
                 look->what, look->network);
    else
        snprintf(detail, sizeof(detail),
                 "whether %s lets pass %s, on network %s, depends on matches that moat does not "
                 "read",
                 look->answer.by, look->what, look->network);
    remedy_format(look, forward, remedy, sizeof(remedy));
    check_add(checks, name, !drops, detail, remedy);
}

static void check(struct service *service, const char *name, bool forward, struct checks *checks)
{
    _cleanup_(look_deinit) struct look look = {.answer.verdict = FOREIGN_PASSES};
    struct error error = ERROR_INIT;

    if (look_init(&look, service, &error) < 0) {
        check_add(checks, name, false, error.text, "run moatd as root");
        return;
    }
    if (forward)
        look_at_forwarding(&look);
    else
        look_at_input(&look);
    tell(&look, name, forward, checks);
}

void check_forward(struct service *service, struct checks *checks)
{
    check(service, "forward", true, checks);
}

void check_input(struct service *service, struct checks *checks)
{
    check(service, "input", false, checks);
}
