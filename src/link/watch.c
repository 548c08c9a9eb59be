/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hears of every change of links, addresses and routes in the host's namespace, and tells whose it
 * is.
 *
 * Address and route messages carry the port of whoever caused them, so ours are known. Most link
 * messages do not, so they are compared with what the link should look like (known.h). A message
 * shows a state that may be gone by the time it is read: what is behind our own later change looks
 * wrong in it. So a link that looks wrong becomes a suspect, a later message that looks right
 * clears it, and what is still suspect when the socket is empty is read from the kernel before
 * anybody is told.
 *
 * When the socket overflows (ENOBUFS), everything is compared with a dump instead. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/netconf.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "handle.h"
#include "patrol.h"
#include "settings.h"

#define DATAGRAMS_PER_TURN 64
#define RECEIVE_BUFFER_SIZE (8 * 1024 * 1024)
#define HOST_CHANGED_DELAY_MS 50
#define STRANGERS_MAX 32

enum suspicion { SUSPECT_LINK, SUSPECT_PRESENT };

/* SUSPECT_LINK: looks wrong. SUSPECT_PRESENT: something of it was changed for sure, which only
 * matters if the link is still there. */
struct suspect {
    uint32_t index;
    enum suspicion suspicion;
};

struct gone {
    char name[IFNAMSIZ];
    uint32_t index;
};

struct watch {
    struct link *link;
    int fd;
    struct loop_io *io;
    struct loop_timer *check;  /* compares everything, on the next turn */
    struct loop_timer *settle; /* delays host_changed */
    struct patrol *patrol;     /* looks at what nobody tells of */
    struct loop_wake *found;   /* it has found something */
    const struct link_watch_ops *ops;
    void *userdata;
    struct suspect suspects[DATAGRAMS_PER_TURN];
    size_t n_suspects;
    struct gone *gone;
    size_t n_gone, gone_capacity;
    uint32_t strangers[STRANGERS_MAX]; /* indexes of links that are not known (yet) */
    size_t n_strangers;
    bool host_changed; /* something else of the host's changed */
    bool drift;
    bool overflow;
    bool bridge_nf; /* as it was when last looked at */
};

/* ------------------------------------------------------------------------------- suspects */
static void suspect_add(struct watch *watch, uint32_t index, enum suspicion suspicion)
{
    for (size_t i = 0; i < watch->n_suspects; i++)
        if (watch->suspects[i].index == index && watch->suspects[i].suspicion == suspicion)
            return;
    if (watch->n_suspects < DATAGRAMS_PER_TURN)
        watch->suspects[watch->n_suspects++] =
            (struct suspect){.index = index, .suspicion = suspicion};
    else
        watch->drift = true;
}

static void suspect_clear(struct watch *watch, uint32_t index)
{
    for (size_t i = 0; i < watch->n_suspects; i++)
        if (watch->suspects[i].index == index && watch->suspects[i].suspicion == SUSPECT_LINK)
            watch->suspects[i--] = watch->suspects[--watch->n_suspects];
}

static bool link_looks_right(const struct known *known, const struct link_state *state)
{
    return state->info.up && strcmp(known->name, state->info.name) == 0 &&
           known->group == state->info.group && known->master == state->info.master &&
           known->mtu == state->mtu && !state->spanning_tree &&
           (known->kind != KNOWN_BRIDGE || !mac_is_set(&known->mac) ||
            mac_equal(&known->mac, &state->mac));
}

static bool suspect_is_guilty(struct watch *watch, const struct suspect *suspect)
{
    struct known_table *all = &watch->link->shared->known;
    struct known known;
    struct link_state state;

    if (link_get(&watch->link->host, suspect->index, NULL, &state) < 0 ||
        !known_find(all, suspect->index, &known) || known.retired)
        return false;
    return suspect->suspicion == SUSPECT_PRESENT || !link_looks_right(&known, &state);
}

/* A link that is no longer known. */
static void gone_add(struct watch *watch, const struct known *known)
{
    if (known->retired)
        return;
    if (watch->n_gone == watch->gone_capacity) {
        size_t capacity = watch->gone_capacity ? watch->gone_capacity * 2 : 16;
        struct gone *gone = reallocarray(watch->gone, capacity, sizeof(*gone));

        if (!gone) {
            watch->overflow = true; /* found again by comparing everything */
            return;
        }
        watch->gone = gone;
        watch->gone_capacity = capacity;
    }
    struct gone *gone = &watch->gone[watch->n_gone++];
    memcpy(gone->name, known->name, sizeof(gone->name));
    gone->index = known->index;
}

/* ------------------------------------------------------------------------------- messages */
static void settle_later(struct watch *watch)
{
    if (!loop_timer_is_active(watch->settle))
        loop_timer_start(watch->settle, HOST_CHANGED_DELAY_MS);
}

static void host_changed(struct watch *watch)
{
    watch->host_changed = true;
    settle_later(watch);
}

/* Something came about on a link that is not known. It may be one of ours that is just being made:
 * a tap has no mark before it is there. */
static void stranger_add(struct watch *watch, uint32_t index)
{
    for (size_t i = 0; i < watch->n_strangers; i++)
        if (watch->strangers[i] == index)
            return;
    if (watch->n_strangers < STRANGERS_MAX)
        watch->strangers[watch->n_strangers++] = index;
    else
        watch->host_changed = true;
    settle_later(watch);
}

/* It was one of ours in the making. */
static void stranger_clear(struct watch *watch, uint32_t index)
{
    for (size_t i = 0; i < watch->n_strangers; i++)
        if (watch->strangers[i] == index)
            watch->strangers[i--] = watch->strangers[--watch->n_strangers];
}

/* Has the host changed, apart from links that turned out to be ours? */
static bool take_host_changed(struct watch *watch)
{
    struct known known;

    for (size_t i = 0; i < watch->n_strangers && !watch->host_changed; i++)
        watch->host_changed = !known_find(&watch->link->shared->known, watch->strangers[i], &known);
    bool changed = watch->host_changed;
    watch->n_strangers = 0;
    watch->host_changed = false;
    return changed;
}

static void take_link(struct watch *watch, const struct nlmsghdr *message)
{
    struct known_table *all = &watch->link->shared->known;
    struct link_state state;
    struct known known;

    if (link_parse(message, &state) < 0)
        return;
    bool found = known_find(all, state.info.index, &known);
    if (found || link_is_ours(state.info.group, state.info.alias) ||
        known_is_expected(all, state.info.name))
        stranger_clear(watch, state.info.index);
    else
        stranger_add(watch, state.info.index);
    if (!found)
        return;
    if (message->nlmsg_type == RTM_DELLINK) {
        known_remove(all, known.index);
        gone_add(watch, &known);
    } else if (known.retired || link_looks_right(&known, &state)) {
        suspect_clear(watch, state.info.index);
    } else {
        suspect_add(watch, state.info.index, SUSPECT_LINK);
    }
}

static void take_address(struct watch *watch, const struct nlmsghdr *message)
{
    const struct nlattr *table[IFA_MAX + 1];
    const struct ifaddrmsg *header = mnl_nlmsg_get_payload(message);

    if (mnl_nlmsg_get_payload_len(message) < sizeof(*header))
        return;
    struct known known;
    if (!known_find(&watch->link->shared->known, header->ifa_index, &known)) {
        stranger_add(watch, header->ifa_index);
        return;
    }
    netlink_parse_message(message, sizeof(*header), table, IFA_MAX);
    struct ip ip =
        attribute_ip(header->ifa_family, table[IFA_LOCAL] ? table[IFA_LOCAL] : table[IFA_ADDRESS]);
    bool ours = ip_equal(&ip, &known.address.ip) || ip_equal(&ip, &known.address6.ip) ||
                ip_equal(&ip, &link_router6.ip);
    if (message->nlmsg_type == RTM_DELADDR && ours)
        suspect_add(watch, header->ifa_index, SUSPECT_PRESENT);
}

static void take_route(struct watch *watch, const struct nlmsghdr *message)
{
    const struct nlattr *table[RTA_MAX + 1];
    const struct rtmsg *header = mnl_nlmsg_get_payload(message);

    if (mnl_nlmsg_get_payload_len(message) < sizeof(*header))
        return;
    netlink_parse_message(message, sizeof(*header), table, RTA_MAX);
    uint32_t index = attribute_u32(table[RTA_OIF]);
    bool ours = header->rtm_protocol == LINK_ROUTE_PROTOCOL;
    struct known known;
    if (!ours && !known_find(&watch->link->shared->known, index, &known))
        stranger_add(watch, index);
    else if (ours && message->nlmsg_type == RTM_DELROUTE)
        suspect_add(watch, index, SUSPECT_PRESENT);
}

/* A new link's message has all settings, as they are by default; a change's has the one. */
static bool forwarding_is_off(const struct nlattr **table)
{
    return table[NETCONFA_FORWARDING] && attribute_u32(table[NETCONFA_FORWARDING]) == 0;
}

static bool proxying_is_off(const struct nlattr **table)
{
    return table[NETCONFA_PROXY_NEIGH] && attribute_u32(table[NETCONFA_PROXY_NEIGH]) == 0;
}

/* The rest of what matters to IPv6 is found by looking (settings.h). */
static bool settings6_are_wrong(const struct known *known, const struct nlattr **table)
{
    if (known->kind == KNOWN_BRIDGE)
        return cidr_is_set(&known->address6) &&
               (forwarding_is_off(table) || proxying_is_off(table));
    return ip_is_set(&known->ip6) && forwarding_is_off(table);
}

static bool settings4_are_wrong(const struct known *known, const struct nlattr **table)
{
    return forwarding_is_off(table) ||
           (known->kind == KNOWN_ROUTED &&
            (proxying_is_off(table) ||
             (table[NETCONFA_RP_FILTER] && attribute_u32(table[NETCONFA_RP_FILTER]) != 1)));
}

static void take_settings(struct watch *watch, const struct nlmsghdr *message)
{
    const struct nlattr *table[NETCONFA_MAX + 1];
    struct known_table *all = &watch->link->shared->known;
    const struct netconfmsg *header = mnl_nlmsg_get_payload(message);

    if (mnl_nlmsg_get_payload_len(message) < sizeof(*header))
        return;
    netlink_parse_message(message, sizeof(*header), table, NETCONFA_MAX);
    if (!table[NETCONFA_IFINDEX] || (table[NETCONFA_FORWARDING] && table[NETCONFA_PROXY_NEIGH]))
        return;
    int32_t index = (int32_t)attribute_u32(table[NETCONFA_IFINDEX]);
    if (index == NETCONFA_IFINDEX_ALL) {
        watch->drift = watch->drift || (forwarding_is_off(table) && known_count(all) > 0);
        return;
    }
    struct known known;
    if (!known_find(all, (uint32_t)index, &known) || known.kind == KNOWN_BRIDGED ||
        known.kind == KNOWN_BETWEEN)
        return;
    if (header->ncm_family == AF_INET6 ? settings6_are_wrong(&known, table)
                                       : settings4_are_wrong(&known, table))
        suspect_add(watch, (uint32_t)index, SUSPECT_PRESENT);
}

static void take_message(struct watch *watch, const struct nlmsghdr *message)
{
    bool caused_by_us = link_port_is_ours(watch->link, message->nlmsg_pid);

    switch (message->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        take_link(watch, message);
        break;
    case RTM_NEWADDR:
    case RTM_DELADDR:
        if (!caused_by_us)
            take_address(watch, message);
        break;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        if (!caused_by_us)
            take_route(watch, message);
        break;
    case RTM_NEWRULE: /* a VPN may have come with it */
    case RTM_DELRULE:
        host_changed(watch);
        break;
    case RTM_NEWNETCONF:
        take_settings(watch, message);
        break;
    default:
        break;
    }
}

/* ------------------------------------------------------------------------------- comparing */
static int check_take(const struct nlmsghdr *message, void *userdata)
{
    struct watch *watch = userdata;
    struct link_state state;

    if (!message || link_parse(message, &state) < 0)
        return 0;
    known_survey_mark(&watch->link->shared->known, state.info.index);
    return 0;
}

static void check_gone(const struct known *known, void *userdata)
{
    gone_add(userdata, known);
}

/* Which links are gone that nobody told us of? */
static void check_all(struct watch *watch)
{
    struct request request;

    watch->overflow = false;
    known_survey_begin(&watch->link->shared->known);
    request_init(&request);
    mnl_attr_put_u32(request_link(&request, RTM_GETLINK, 0, 0, "read"), IFLA_EXT_MASK,
                     RTEXT_FILTER_SKIP_STATS);
    int r = netlink_dump(&watch->link->host, &request, check_take, watch);
    if (r < 0) {
        log_warning("cannot read the host's links, trying again: %s", strerrordesc_np(-r));
        loop_timer_start(watch->check, 1000);
        return;
    }
    known_survey_end(&watch->link->shared->known, check_gone, watch);
}

/* ------------------------------------------------------------------------------- the turn */
/* Calls back last of all: a callback may change links, which changes the table. */
static void watch_report(struct watch *watch)
{
    for (size_t i = 0; i < watch->n_suspects && !watch->drift; i++)
        watch->drift = suspect_is_guilty(watch, &watch->suspects[i]);
    watch->n_suspects = 0;
    for (size_t i = 0; i < watch->n_gone; i++)
        watch->ops->link_gone(watch->userdata, watch->gone[i].name, watch->gone[i].index);
    watch->n_gone = 0;
    if (watch->drift) {
        watch->drift = false;
        watch->ops->drift(watch->userdata);
    }
}

/* Returns false when there is nothing more to read. */
static bool watch_receive(struct watch *watch)
{
    struct netlink_reply datagram;
    const struct nlmsghdr *message = (const struct nlmsghdr *)(void *)datagram.buffer;
    ssize_t length = recv(watch->fd, datagram.buffer, sizeof(datagram.buffer), MSG_DONTWAIT);
    int left = (int)length;

    if (length < 0 && errno == ENOBUFS) {
        watch->overflow = true;
        return true;
    }
    if (length < 0)
        return errno == EINTR;
    for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
        take_message(watch, message);
    return true;
}

static void watch_readable(void *userdata, unsigned events)
{
    struct watch *watch = userdata;

    (void)events;
    for (unsigned i = 0; i < DATAGRAMS_PER_TURN && watch_receive(watch); i++)
        ;
    if (watch->overflow) {
        check_all(watch);
        watch->drift = true;
        host_changed(watch);
    }
    watch_report(watch);
}

static void watch_check(void *userdata)
{
    struct watch *watch = userdata;

    check_all(watch);
    watch_report(watch);
}

/* The patrol's thread has found a link that is wrong, or in the middle of a change. */
static void watch_found(void *userdata)
{
    struct watch *watch = userdata;
    struct known known;
    char wrong[256];

    if (!known_find(&watch->link->shared->known, patrol_take(watch->patrol), &known) ||
        !settings_find_wrong(watch->link, &known, wrong, sizeof(wrong)))
        return;
    log_info("%s: repairing", wrong);
    watch->drift = true;
    watch_report(watch);
}

static void on_found(void *userdata)
{
    struct watch *watch = userdata;

    loop_wake_send(watch->found);
}

/* Nothing tells that br_netfilter came or was switched; whoever does that (Docker, Kubernetes)
 * makes links at the same time. */
static void watch_settled(void *userdata)
{
    struct watch *watch = userdata;
    bool bridge_nf = link_bridge_nf(watch->link);

    if (bridge_nf != watch->bridge_nf) {
        watch->bridge_nf = bridge_nf;
        watch->ops->drift(watch->userdata);
    }
    if (take_host_changed(watch))
        watch->ops->host_changed(watch->userdata);
}

/* ------------------------------------------------------------------------------- socket */
/* Keeps out, in the kernel, what nobody needs: messages about bridge ports (which look like links
 * that go when a port leaves its bridge), the routes of table local, and the IPv6 routes that the
 * kernel makes with every link and address. */
static int watch_set_filter(int fd)
{
    enum { ACCEPT = 15, DROP = 16 };
    struct sock_filter code[] = {
        [0] = BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type)),
        [1] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWLINK), 4 - 2, 0),
        [2] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELLINK), 4 - 3, 0),
        [3] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWROUTE), 7 - 4, 6 - 4),
        /* a link */
        [4] = BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN),
        [5] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_BRIDGE, DROP - 6, ACCEPT - 6),
        [6] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELROUTE), 0, ACCEPT - 7),
        /* a route */
        [7] = BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN + offsetof(struct rtmsg, rtm_table)),
        [8] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RT_TABLE_LOCAL, DROP - 9, 0),
        [9] = BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN),
        [10] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 0, ACCEPT - 11),
        [11] =
            BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN + offsetof(struct rtmsg, rtm_dst_len)),
        [12] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, ACCEPT - 13, 0),
        [13] =
            BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN + offsetof(struct rtmsg, rtm_protocol)),
        [14] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RTPROT_KERNEL, DROP - 15, ACCEPT - 15),
        [ACCEPT] = BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        [DROP] = BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static int watch_subscribe(int fd)
{
    static const int groups[] = {RTNLGRP_LINK,       RTNLGRP_IPV4_IFADDR,  RTNLGRP_IPV6_IFADDR,
                                 RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_ROUTE,
                                 RTNLGRP_IPV4_RULE,  RTNLGRP_IPV6_RULE,    RTNLGRP_IPV6_NETCONF};

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
        if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof(groups[i])) < 0)
            return -1;
    return 0;
}

static int watch_open(struct watch *watch, struct error *error)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    int size = RECEIVE_BUFFER_SIZE;

    watch->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (watch->fd < 0 || bind(watch->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        watch_set_filter(watch->fd) < 0)
        return error_set(error, errno, "cannot watch the host's links");
    if (setsockopt(watch->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0 &&
        setsockopt(watch->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0)
        return error_set(error, errno, "cannot set the size of a socket's buffer");
    if (watch_subscribe(watch->fd) < 0)
        return error_set(error, errno, "cannot watch the host's links");
    return 0;
}

int link_watch_start(struct link *link, struct loop *loop, const struct link_watch_ops *ops,
                     void *userdata, struct error *error)
{
    struct watch *watch = calloc(1, sizeof(*watch));

    if (!watch)
        return error_set(error, ENOMEM, "cannot watch the host's links");
    *watch = (struct watch){.link = link,
                            .fd = -1,
                            .ops = ops,
                            .userdata = userdata,
                            .bridge_nf = link_bridge_nf(link)};
    link_watch_stop(link);
    link->watch = watch;
    link->shared->watched = true;
    int r = watch_open(watch, error);
    if (r < 0) {
        link_watch_stop(link);
        return r;
    }
    watch->io = loop_io_new(loop, watch->fd, LOOP_READ, watch_readable, watch);
    watch->check = loop_timer_new(loop, watch_check, watch);
    watch->settle = loop_timer_new(loop, watch_settled, watch);
    watch->found = loop_wake_new(loop, watch_found, watch);
    if (!watch->io || !watch->check || !watch->settle || !watch->found)
        r = error_set(error, ENOMEM, "cannot watch the host's links");
    else
        r = patrol_new(link, on_found, watch, &watch->patrol, error);
    if (r < 0) {
        link_watch_stop(link);
        return r;
    }
    loop_timer_start(watch->check, 0); /* what went before we listened */
    return 0;
}

void link_watch_stop(struct link *link)
{
    struct watch *watch = link->watch;

    if (!watch)
        return;
    link->watch = NULL;
    link->shared->watched = false;
    loop_io_free(watch->io);
    loop_timer_free(watch->check);
    loop_timer_free(watch->settle);
    patrol_free(watch->patrol);
    loop_wake_free(watch->found);
    if (watch->fd >= 0)
        close(watch->fd);
    free(watch->gone);
    free(watch);
}
