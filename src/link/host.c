/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the host has, whoever made it: links, addresses, routes. Read, never changed. */
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "handle.h"

/* An array that grows. */
struct list {
    void *items;
    size_t count, capacity;
};

static void *list_add(struct list *list, size_t item_size)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        void *items = reallocarray(list->items, capacity, item_size);

        if (!items)
            return NULL;
        list->items = items;
        list->capacity = capacity;
    }
    return (char *)list->items + list->count++ * item_size;
}

/* ------------------------------------------------------------------------------- links */
static int links_take(const struct nlmsghdr *message, void *userdata)
{
    struct list *links = userdata;
    struct link_state state;

    if (!message) {
        links->count = 0;
        return 0;
    }
    int r = link_parse(message, &state);
    if (r < 0)
        return r;
    struct link_info *info = list_add(links, sizeof(*info));
    if (!info)
        return -ENOMEM;
    *info = state.info;
    return 0;
}

/* All links of the host. */
static int links_read(struct link *link, struct list *links, struct error *error)
{
    struct request request;

    request_init(&request);
    struct nlmsghdr *message = request_link(&request, RTM_GETLINK, 0, 0, "read");
    mnl_attr_put_u32(message, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    int r = netlink_dump(&link->host, &request, links_take, links);
    return r < 0 ? error_set_kernel(error, r, NULL, "cannot read the host's links") : 0;
}

int link_list_all(struct link *link, struct link_info **ret_links, size_t *ret_count,
                  struct error *error)
{
    struct list links = {0};

    int r = links_read(link, &links, error);
    if (r < 0) {
        free(links.items);
        return r;
    }
    *ret_links = links.items;
    *ret_count = links.count;
    return 0;
}

int link_list(struct link *link, struct link_info **ret_links, size_t *ret_count,
              struct error *error)
{
    struct list links = {0};
    size_t ours = 0;

    int r = links_read(link, &links, error);
    if (r < 0) {
        free(links.items);
        return r;
    }
    struct link_info *items = links.items;
    for (size_t i = 0; i < links.count; i++)
        if (link_is_ours(items[i].group, items[i].alias) && items[i].group != LINK_GROUP_DYING)
            items[ours++] = items[i];
    *ret_links = items;
    *ret_count = ours;
    return 0;
}

struct mac_search {
    struct mac mac;
    char name[IFNAMSIZ];
};

static int mac_search_take(const struct nlmsghdr *message, void *userdata)
{
    struct mac_search *search = userdata;
    struct link_state state;
    int r;

    if (!message) {
        search->name[0] = '\0';
        return 0;
    }
    r = link_parse(message, &state);
    if (r == 0 && state.info.group != LINK_GROUP_DYING && mac_equal(&state.mac, &search->mac))
        memcpy(search->name, state.info.name, sizeof(search->name));
    return r;
}

int link_mac_find(struct link *link, const struct mac *mac, char ret_name[IFNAMSIZ],
                  bool *ret_found, struct error *error)
{
    struct mac_search search = {.mac = *mac};
    struct request request;

    request_init(&request);
    struct nlmsghdr *message = request_link(&request, RTM_GETLINK, 0, 0, "read");
    mnl_attr_put_u32(message, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    int r = netlink_dump(&link->host, &request, mac_search_take, &search);
    if (r < 0)
        return error_set_kernel(error, r, NULL, "cannot read the host's links");
    *ret_found = search.name[0] != '\0';
    if (*ret_found)
        memcpy(ret_name, search.name, sizeof(search.name));
    return 0;
}

int link_bridge_name(struct link *link, unsigned first, char ret_name[IFNAMSIZ],
                     struct error *error)
{
    char name[IFNAMSIZ];

    for (unsigned n = first; n >= first && n < 100000; n++) {
        snprintf(name, sizeof(name), "moat%u", n);
        if (!link_exists(link, name)) {
            memcpy(ret_name, name, sizeof(name));
            return 0;
        }
    }
    return error_set_reason(error, REASON_QUOTA, "no name from moat%u on is free for a bridge",
                            first);
}

/* ------------------------------------------------------------------------------- prefixes */
/* Of links that addresses or routes are on, ours are known. Others are asked for one by one, since
 * a dump of all takes the kernel milliseconds where there are hundreds of guests, and holds
 * everybody up; but not where they are many themselves. */
#define ASKED_MAX 64

struct owner {
    uint32_t index; /* first: index_order */
    bool found;
    bool ours;
    char name[IFNAMSIZ];
};

struct collection {
    struct list prefixes;
    struct list indexes; /* of the prefixes' links; 0 for none */
    size_t keep;         /* prefixes that earlier dumps gave */
};

static int collection_add(struct collection *collection, enum link_prefix_kind kind,
                          const struct cidr *cidr, uint32_t index, uint32_t table, bool ours)
{
    struct link_prefix *prefix = list_add(&collection->prefixes, sizeof(*prefix));
    uint32_t *place = prefix ? list_add(&collection->indexes, sizeof(*place)) : NULL;

    if (!place)
        return -ENOMEM;
    *prefix = (struct link_prefix){.kind = kind, .cidr = *cidr, .table = table, .ours = ours};
    *place = index;
    return 0;
}

static void collection_restart(struct collection *collection)
{
    collection->prefixes.count = collection->indexes.count = collection->keep;
}

static void owner_is(struct owner *owner, const struct link_info *info)
{
    owner->found = true;
    owner->ours = link_is_ours(info->group, info->alias);
    memcpy(owner->name, info->name, sizeof(owner->name));
}

static bool owner_know(struct link *link, struct owner *owner)
{
    struct known known;

    if (!known_find(&link->shared->known, owner->index, &known))
        return false;
    owner->found = owner->ours = true;
    memcpy(owner->name, known.name, sizeof(owner->name));
    return true;
}

static int owners_ask(struct link *link, struct owner *owners, size_t count)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        struct link_state state;

        if (owners[i].found)
            continue;
        r = link_get(&link->host, owners[i].index, NULL, &state);
        if (r == 0)
            owner_is(&owners[i], &state.info);
        else if (r == -ENODEV)
            r = 0;
    }
    return r;
}

static int link_order(const void *a, const void *b)
{
    const struct link_info *left = a, *right = b;

    return left->index < right->index ? -1 : left->index > right->index;
}

static int owners_look_up(struct link *link, struct owner *owners, size_t count,
                          struct error *error)
{
    struct list links = {0};
    int r = links_read(link, &links, error);

    if (r == 0 && links.count > 0)
        qsort(links.items, links.count, sizeof(struct link_info), link_order);
    for (size_t i = 0; r == 0 && links.count > 0 && i < count; i++) {
        struct link_info wanted = {.index = owners[i].index};
        const struct link_info *info =
            bsearch(&wanted, links.items, links.count, sizeof(wanted), link_order);

        if (info && !owners[i].found)
            owner_is(&owners[i], info);
    }
    free(links.items);
    return r;
}

static int index_order(const void *a, const void *b)
{
    const uint32_t *left = a, *right = b;

    return *left < *right ? -1 : *left > *right;
}

/* Of each index once, sorted. */
static int owners_find(struct link *link, const struct collection *collection, struct list *owners,
                       struct error *error)
{
    size_t count = collection->indexes.count;
    _cleanup_free_ uint32_t *indexes = malloc((count + 1) * sizeof(*indexes));
    size_t unknown = 0;
    int r;

    if (!indexes)
        return error_set(error, ENOMEM, "cannot read the host's addresses");
    if (count > 0) {
        memcpy(indexes, collection->indexes.items, count * sizeof(*indexes));
        qsort(indexes, count, sizeof(*indexes), index_order);
    }
    for (size_t i = 0; i < count; i++) {
        struct owner *owner;

        if (indexes[i] == 0 || (i > 0 && indexes[i] == indexes[i - 1]))
            continue;
        owner = list_add(owners, sizeof(*owner));
        if (!owner)
            return error_set(error, ENOMEM, "cannot read the host's addresses");
        *owner = (struct owner){.index = indexes[i]};
        unknown += !owner_know(link, owner);
    }
    if (unknown > ASKED_MAX)
        return owners_look_up(link, owners->items, owners->count, error);
    r = owners_ask(link, owners->items, owners->count);
    return r < 0 ? error_set_kernel(error, r, NULL, "cannot read the links of the host's addresses")
                 : 0;
}

/* Says of each prefix whose it is. Those of links that went meanwhile went with them. */
static int collection_own(struct link *link, struct collection *collection, struct error *error)
{
    struct link_prefix *prefixes = collection->prefixes.items;
    const uint32_t *indexes = collection->indexes.items;
    struct list owners = {0};
    size_t kept = 0;
    int r = owners_find(link, collection, &owners, error);

    for (size_t i = 0; r == 0 && i < collection->prefixes.count; i++) {
        const struct owner *owner = owners.count ? bsearch(&indexes[i], owners.items, owners.count,
                                                           sizeof(*owner), index_order)
                                                 : NULL;

        if (owner && !owner->found)
            continue;
        prefixes[kept] = prefixes[i];
        if (owner) {
            memcpy(prefixes[kept].interface, owner->name, sizeof(prefixes[kept].interface));
            prefixes[kept].ours = prefixes[kept].ours || owner->ours;
        }
        kept++;
    }
    collection->prefixes.count = kept;
    free(owners.items);
    return r;
}

/* On a point-to-point link the own address stands apart from the prefix, which is the peer's. */
static int addresses_take(const struct nlmsghdr *message, void *userdata)
{
    const struct nlattr *table[IFA_MAX + 1];
    struct collection *collection = userdata;
    const struct ifaddrmsg *header;

    if (!message) {
        collection_restart(collection);
        return 0;
    }
    header = mnl_nlmsg_get_payload(message);
    if (header->ifa_family != AF_INET && header->ifa_family != AF_INET6)
        return 0;
    netlink_parse_message(message, sizeof(*header), table, IFA_MAX);
    struct cidr prefix = {.ip = attribute_ip(header->ifa_family, table[IFA_ADDRESS]),
                          .prefix = header->ifa_prefixlen};
    struct cidr local = {.ip = attribute_ip(header->ifa_family, table[IFA_LOCAL]),
                         .prefix = (uint8_t)ip_bits(header->ifa_family)};
    int r = 0;
    if (ip_is_set(&local.ip) && !ip_equal(&local.ip, &prefix.ip))
        r = collection_add(collection, LINK_PREFIX_ADDRESS, &local, header->ifa_index, 0, false);
    if (r == 0 && ip_is_set(&prefix.ip))
        r = collection_add(collection, LINK_PREFIX_ADDRESS, &prefix, header->ifa_index, 0, false);
    return r;
}

static bool route_counts(const struct rtmsg *route)
{
    if (route->rtm_family != AF_INET && route->rtm_family != AF_INET6)
        return false;
    if (route->rtm_dst_len == 0 || route->rtm_flags & RTM_F_CLONED)
        return false;
    switch (route->rtm_type) {
    case RTN_UNICAST:
    case RTN_BLACKHOLE:
    case RTN_UNREACHABLE:
    case RTN_PROHIBIT:
    case RTN_THROW:
        return true;
    case RTN_LOCAL: /* a whole prefix that is local; a single address is listed as one */
        return route->rtm_dst_len < ip_bits(route->rtm_family);
    default:
        return false;
    }
}

static int routes_take(const struct nlmsghdr *message, void *userdata)
{
    const struct nlattr *table[RTA_MAX + 1];
    struct collection *collection = userdata;
    const struct rtmsg *header;

    if (!message) {
        collection_restart(collection);
        return 0;
    }
    header = mnl_nlmsg_get_payload(message);
    if (!route_counts(header))
        return 0;
    netlink_parse_message(message, sizeof(*header), table, RTA_MAX);
    struct cidr prefix = {.ip = attribute_ip(header->rtm_family, table[RTA_DST]),
                          .prefix = header->rtm_dst_len};
    return collection_add(collection, LINK_PREFIX_ROUTE, &prefix, attribute_u32(table[RTA_OIF]),
                          table[RTA_TABLE] ? attribute_u32(table[RTA_TABLE]) : header->rtm_table,
                          header->rtm_protocol == LINK_ROUTE_PROTOCOL);
}

static int collection_read(struct link *link, struct collection *collection, uint16_t type,
                           uint8_t family, size_t header_size, netlink_dump_fn fn)
{
    struct request request;
    void *extra;

    collection->keep = collection->prefixes.count;
    request_init(&request);
    request_add(&request, type, 0, header_size, &extra, "read");
    *(uint8_t *)extra = family; /* the first member of every rtnetlink header */
    return netlink_dump(&link->host, &request, fn, collection);
}

int link_prefix_list(struct link *link, struct link_prefix **ret_prefixes, size_t *ret_count,
                     struct error *error)
{
    struct collection collection = {0};

    int r = collection_read(link, &collection, RTM_GETADDR, AF_UNSPEC, sizeof(struct ifaddrmsg),
                            addresses_take);
    if (r == 0)
        r = collection_read(link, &collection, RTM_GETROUTE, AF_INET, sizeof(struct rtmsg),
                            routes_take);
    if (r == 0 && link->ipv6_conf_fd >= 0)
        r = collection_read(link, &collection, RTM_GETROUTE, AF_INET6, sizeof(struct rtmsg),
                            routes_take);
    if (r < 0)
        error_set_kernel(error, r, NULL, "cannot read the host's addresses and routes");
    else
        r = collection_own(link, &collection, error);
    free(collection.indexes.items);
    if (r < 0) {
        free(collection.prefixes.items);
        return r;
    }
    *ret_prefixes = collection.prefixes.items;
    *ret_count = collection.prefixes.count;
    return 0;
}

/* ------------------------------------------------------------------------------- lookups */
struct way {
    uint8_t type;   /* RTN_… */
    uint32_t index; /* 0 for none */
    uint32_t mtu;   /* the route's own, 0 for none */
};

/* What the host's routing (all rules and tables) says about an address. Nothing is sent.
 * -ENETUNREACH and its like when there is no way. */
static int way_find(struct link *link, const struct ip *ip, struct way *ret_way)
{
    const struct nlattr *table[RTA_MAX + 1], *metrics[RTAX_MAX + 1];
    const struct nlmsghdr *answer;
    struct netlink_reply reply;
    struct request request;
    void *extra;

    request_init(&request);
    struct nlmsghdr *message =
        request_add(&request, RTM_GETROUTE, 0, sizeof(struct rtmsg), &extra, "find");
    ((struct rtmsg *)extra)->rtm_family = ip->family;
    ((struct rtmsg *)extra)->rtm_dst_len = (uint8_t)ip_bits(ip->family);
    mnl_attr_put(message, RTA_DST, ip_bits(ip->family) / 8, ip->bytes);
    int r = netlink_get(&link->host, &request, &reply, &answer);
    if (r < 0)
        return r;
    netlink_parse_message(answer, sizeof(struct rtmsg), table, RTA_MAX);
    *ret_way = (struct way){.type = ((const struct rtmsg *)mnl_nlmsg_get_payload(answer))->rtm_type,
                            .index = attribute_u32(table[RTA_OIF])};
    if (table[RTA_METRICS]) {
        netlink_parse_attributes(mnl_attr_get_payload(table[RTA_METRICS]),
                                 mnl_attr_get_payload_len(table[RTA_METRICS]), metrics, RTAX_MAX);
        ret_way->mtu = attribute_u32(metrics[RTAX_MTU]);
    }
    return 0;
}

/* Errors of a lookup that mean "there is no way", not "it could not be found out". */
static bool way_is_none(int r)
{
    return r == -ENETUNREACH || r == -EHOSTUNREACH || r == -EACCES || r == -EINVAL ||
           r == -EAFNOSUPPORT || r == -EOPNOTSUPP || r == -ENETDOWN || r == -EAGAIN;
}

int link_address_is_local(struct link *link, const struct ip *ip, bool *ret_local,
                          struct error *error)
{
    struct way way = {0};
    int r = 0;

    if (!ip_is_unspecified(ip))
        r = way_find(link, ip, &way);
    if (r < 0 && !way_is_none(r))
        return error_set_kernel(error, r, NULL, "cannot look an address up in the routing tables");
    *ret_local = r == 0 && way.type == RTN_LOCAL;
    return 0;
}

int link_way_out(struct link *link, const struct ip *ip, char ret_interface[IFNAMSIZ],
                 struct error *error)
{
    struct way way = {0};
    int r = way_find(link, ip, &way);

    if (r < 0 && !way_is_none(r))
        return error_set_kernel(error, r, NULL, "cannot look the way out up");
    if (r < 0 || way.type != RTN_UNICAST || !link_name_find(way.index, ret_interface))
        ret_interface[0] = '\0';
    return 0;
}

/* MTU of the way to an address on the Internet, 0 if there is none. */
static int way_mtu(struct link *link, const struct ip *ip, uint32_t *ret_mtu, struct error *error)
{
    struct link_state state;
    struct way way;

    int r = way_find(link, ip, &way);
    if (r < 0 && !way_is_none(r))
        return error_set_kernel(error, r, NULL, "cannot look the way out up");
    *ret_mtu = 0;
    if (r < 0 || way.type != RTN_UNICAST || way.index == 0)
        return 0;
    r = link_get(&link->host, way.index, NULL, &state);
    if (r == 0)
        *ret_mtu = way.mtu != 0 && way.mtu < state.mtu ? way.mtu : state.mtu;
    return 0; /* a link that has just gone is no way */
}

int link_default_mtu(struct link *link, uint32_t *ret_mtu, struct error *error)
{
    /* Any address far away does: policy rules and split default routes are honoured so. */
    static const struct ip far4 = {.family = AF_INET, .bytes = {1, 1, 1, 1}};
    static const struct ip far6 = {.family = AF_INET6, .bytes = {0x2a, [15] = 1}};
    uint32_t mtu4, mtu6;

    int r = way_mtu(link, &far4, &mtu4, error);
    if (r == 0)
        r = way_mtu(link, &far6, &mtu6, error);
    if (r < 0)
        return r;
    if (mtu4 == 0 || (mtu6 != 0 && mtu6 < mtu4))
        mtu4 = mtu6;
    *ret_mtu = mtu4 != 0 ? mtu4 : 1500;
    return 0;
}
