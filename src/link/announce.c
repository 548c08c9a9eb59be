/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When a port moves between bridged and routed, what stands in ARP caches is wrong: the guest's
 * peers knew its own MAC and must now use the host's, the guest knew its peers' and finds only the
 * host behind its link; or the other way round. A gratuitous ARP request (sender and target are the
 * same address), and an unsolicited neighbour advertisement that overrides, make every IP stack
 * overwrite an entry that it has, and add none. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/ip6.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "handle.h"

static const uint8_t broadcast[ETH_ALEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct announcement {
    struct ether_header ethernet;
    struct ether_arp arp;
} __attribute__((packed));

/* Kept open: closing a packet socket waits for an RCU grace period. */
static int announce_open(struct link *link, struct error *error)
{
    if (link->packet_fd < 0)
        link->packet_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (link->packet_fd < 0)
        return error_set(error, errno, "cannot open a packet socket");
    return 0;
}

/* "ip is at mac", to everyone behind a link. What is lost is repaired by ARP's own ageing. */
static void announce(const struct link *link, uint32_t index, const struct ip *ip,
                     const struct mac *mac)
{
    struct announcement frame = {.ethernet.ether_type = htons(ETHERTYPE_ARP),
                                 .arp.ea_hdr = {.ar_hrd = htons(ARPHRD_ETHER),
                                                .ar_pro = htons(ETHERTYPE_IP),
                                                .ar_hln = ETH_ALEN,
                                                .ar_pln = 4,
                                                .ar_op = htons(ARPOP_REQUEST)}};
    struct sockaddr_ll link_address = {.sll_family = AF_PACKET,
                                       .sll_protocol = htons(ETH_P_ARP),
                                       .sll_ifindex = (int)index,
                                       .sll_halen = ETH_ALEN};

    memcpy(frame.ethernet.ether_dhost, broadcast, ETH_ALEN);
    memcpy(frame.ethernet.ether_shost, mac->bytes, ETH_ALEN);
    memcpy(frame.arp.arp_sha, mac->bytes, ETH_ALEN);
    memcpy(frame.arp.arp_spa, ip->bytes, 4);
    memcpy(frame.arp.arp_tpa, ip->bytes, 4);
    memcpy(link_address.sll_addr, broadcast, ETH_ALEN);
    (void)sendto(link->packet_fd, &frame, sizeof(frame), MSG_DONTWAIT,
                 (struct sockaddr *)&link_address, sizeof(link_address));
}

/* --- IPv6 --- */

struct advertisement {
    struct ether_header ethernet;
    struct ip6_hdr ip;
    struct nd_neighbor_advert advert;
    struct nd_opt_hdr option;
    uint8_t mac[ETH_ALEN];
} __attribute__((packed));

#define ADVERTISEMENT_PAYLOAD \
    (sizeof(struct advertisement) - offsetof(struct advertisement, advert))

/* RFC 4443 section 2.3: pseudo header and message, summed as 16 bit words. */
static uint16_t advertisement_checksum(const struct advertisement *frame)
{
    const uint8_t *bytes = (const uint8_t *)frame + offsetof(struct advertisement, ip.ip6_src);
    uint32_t sum = ADVERTISEMENT_PAYLOAD + IPPROTO_ICMPV6;

    for (size_t i = 0; i < 32 + ADVERTISEMENT_PAYLOAD; i += 2)
        sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

static void announce6(const struct link *link, uint32_t index, const struct ip *ip,
                      const struct mac *mac)
{
    static const uint8_t all_nodes_mac[ETH_ALEN] = {0x33, 0x33, 0, 0, 0, 1};
    struct advertisement frame = {
        .ethernet.ether_type = htons(ETHERTYPE_IPV6),
        .ip.ip6_flow = htonl(6u << 28),
        .ip.ip6_plen = htons(ADVERTISEMENT_PAYLOAD),
        .ip.ip6_nxt = IPPROTO_ICMPV6,
        .ip.ip6_hlim = 255,
        .ip.ip6_dst.s6_addr = {0xff, 0x02, [15] = 1},
        .advert.nd_na_type = ND_NEIGHBOR_ADVERT,
        .advert.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE,
        .option = {ND_OPT_TARGET_LINKADDR, 1},
    };
    struct sockaddr_ll link_address = {.sll_family = AF_PACKET,
                                       .sll_protocol = htons(ETH_P_IPV6),
                                       .sll_ifindex = (int)index,
                                       .sll_halen = ETH_ALEN};

    memcpy(frame.ethernet.ether_dhost, all_nodes_mac, ETH_ALEN);
    memcpy(frame.ethernet.ether_shost, mac->bytes, ETH_ALEN);
    memcpy(&frame.ip.ip6_src, ip->bytes, 16);
    memcpy(&frame.advert.nd_na_target, ip->bytes, 16);
    memcpy(frame.mac, mac->bytes, ETH_ALEN);
    memcpy(link_address.sll_addr, all_nodes_mac, ETH_ALEN);
    frame.advert.nd_na_cksum = advertisement_checksum(&frame);
    (void)sendto(link->packet_fd, &frame, sizeof(frame), MSG_DONTWAIT,
                 (struct sockaddr *)&link_address, sizeof(link_address));
}

void link_announce(struct link *link, const char *bridge, const struct ip *ip,
                   const struct mac *mac)
{
    uint32_t index = link_index(link, bridge);
    struct error error = ERROR_INIT;

    if (index == 0 || !mac_is_set(mac))
        return;
    if (announce_open(link, &error) < 0)
        log_warning("%s", error.text);
    else if (ip->family == AF_INET)
        announce(link, index, ip, mac);
    else if (ip->family == AF_INET6)
        announce6(link, index, ip, mac);
}

/* --- a port that moves --- */

/* The other guests of its network. */
struct peers {
    const struct known *moved;
    struct known *items;
    size_t count, capacity;
};

static void announce_both(const struct link *link, uint32_t index, const struct known *guest,
                          const struct mac *mac)
{
    if (guest->ip.family == AF_INET)
        announce(link, index, &guest->ip, mac);
    if (guest->ip6.family == AF_INET6)
        announce6(link, index, &guest->ip6, mac);
}

static void peers_take(const struct known *known, void *userdata)
{
    struct peers *peers = userdata;

    if (known->index != peers->moved->index && known->group == peers->moved->group &&
        peers->count < peers->capacity)
        peers->items[peers->count++] = *known;
}

/* To the moved guest: where its peers are to be found now. Behind a routed port that is the host
 * for all of them. */
static void announce_peers(const struct link *link, const struct peers *peers,
                           const struct mac *bridge_mac)
{
    for (size_t i = 0; i < peers->count; i++) {
        const struct known *peer = &peers->items[i];
        bool direct = peers->moved->kind == KNOWN_BRIDGED && peer->kind == KNOWN_BRIDGED;

        announce_both(link, peers->moved->index, peer, direct ? &peer->mac : bridge_mac);
    }
}

int announce_move(struct link *link, const struct known *moved, uint32_t bridge_index,
                  const struct mac *bridge_mac, struct error *error)
{
    struct peers peers = {.moved = moved, .capacity = known_count(&link->shared->known)};

    int r = announce_open(link, error);
    if (r < 0)
        return r;
    peers.items = calloc(peers.capacity + 1, sizeof(*peers.items));
    if (!peers.items)
        return error_set(error, ENOMEM, "cannot announce a port that moved");
    announce_both(link, bridge_index, moved,
                  moved->kind == KNOWN_ROUTED ? bridge_mac : &moved->mac);
    /* Sent when the table is free again: that takes a microsecond or two for each. */
    known_each(&link->shared->known, peers_take, &peers);
    announce_peers(link, &peers, bridge_mac);
    free(peers.items);
    return 0;
}
