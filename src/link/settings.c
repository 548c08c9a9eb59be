/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "settings.h"

#include <assert.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/neighbour.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static const struct ipv4_setting bridge_settings[] = {
    {IPV4_DEVCONF_FORWARDING, 1},
    {IPV4_DEVCONF_ROUTE_LOCALNET, 1},
    {IPV4_DEVCONF_SEND_REDIRECTS, 0},
};

static const struct ipv4_setting routed_settings[] = {
    {IPV4_DEVCONF_FORWARDING, 1},     {IPV4_DEVCONF_PROXY_ARP, 1},      {IPV4_DEVCONF_RP_FILTER, 1},
    {IPV4_DEVCONF_SEND_REDIRECTS, 0}, {IPV4_DEVCONF_ROUTE_LOCALNET, 1},
};

static_assert(ARRAY_SIZE(bridge_settings) <= SETTINGS_MAX &&
                  ARRAY_SIZE(routed_settings) == SETTINGS_MAX,
              "SETTINGS_MAX is out of date");

static const char *const ipv4_names[] = {
    [IPV4_DEVCONF_FORWARDING] = "forwarding",
    [IPV4_DEVCONF_PROXY_ARP] = "proxy_arp",
    [IPV4_DEVCONF_RP_FILTER] = "rp_filter",
    [IPV4_DEVCONF_SEND_REDIRECTS] = "send_redirects",
    [IPV4_DEVCONF_ROUTE_LOCALNET] = "route_localnet",
};

const struct ipv4_setting *settings_of(enum known_kind kind, size_t *ret_count)
{
    *ret_count = kind == KNOWN_BRIDGE   ? ARRAY_SIZE(bridge_settings)
                 : kind == KNOWN_ROUTED ? ARRAY_SIZE(routed_settings)
                                        : 0;
    return kind == KNOWN_BRIDGE ? bridge_settings : routed_settings;
}

const char *settings_name(uint16_t id)
{
    return ipv4_names[id];
}

/* --- reading --- */

/* The values of a family, an array; absent where the link has none of it. */
struct values {
    const uint8_t *data;
    size_t count;
};

static struct values family_values(const struct nlattr *families, uint16_t family, uint16_t type)
{
    const struct nlattr *table[AF_INET6 + 1];
    const struct nlattr *inner[IFLA_INET6_MAX + 1];

    netlink_parse_attributes(mnl_attr_get_payload(families), mnl_attr_get_payload_len(families),
                             table, AF_INET6);
    if (!table[family])
        return (struct values){0};
    netlink_parse_attributes(mnl_attr_get_payload(table[family]),
                             mnl_attr_get_payload_len(table[family]), inner, IFLA_INET6_MAX);
    if (!inner[type])
        return (struct values){0};
    return (struct values){mnl_attr_get_payload(inner[type]),
                           mnl_attr_get_payload_len(inner[type]) / sizeof(uint32_t)};
}

/* A value that the kernel does not tell is as wanted. */
static bool value_is(const struct values *values, size_t index, uint32_t wanted,
                     uint32_t *ret_value)
{
    if (index >= values->count)
        return true;
    memcpy(ret_value, values->data + index * sizeof(uint32_t), sizeof(*ret_value));
    return *ret_value == wanted;
}

/* --- comparing --- */

static bool ipv4_is_wrong(const struct known *known, const struct values *values, char *text,
                          size_t size)
{
    size_t count;
    const struct ipv4_setting *wanted = settings_of(known->kind, &count);
    uint32_t value = 0;

    for (size_t i = 0; i < count; i++) {
        if (value_is(values, wanted[i].id - 1u, wanted[i].value, &value))
            continue;
        snprintf(text, size, "net.ipv4.conf.%s.%s is %u", known->name, settings_name(wanted[i].id),
                 value);
        return true;
    }
    return false;
}

struct ipv6_setting {
    size_t index; /* DEVCONF_… */
    const char *name;
    uint32_t value;
    bool wanted;
};

static bool ipv6_is_wrong(const struct known *known, const struct values *values, char *text,
                          size_t size)
{
    bool is_bridge = known->kind == KNOWN_BRIDGE;
    bool on = is_bridge ? cidr_is_set(&known->address6) : ip_is_set(&known->ip6);
    const struct ipv6_setting settings[] = {
        {DEVCONF_DISABLE_IPV6, "disable_ipv6", !on, is_bridge},
        {DEVCONF_PROXY_NDP, "proxy_ndp", on, is_bridge},
        {DEVCONF_ACCEPT_RA, "accept_ra", 0, true},
        {DEVCONF_FORWARDING, "forwarding", 1, on},
    };
    uint32_t value = 0;

    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        if (!settings[i].wanted || value_is(values, settings[i].index, settings[i].value, &value))
            continue;
        snprintf(text, size, "net.ipv6.conf.%s.%s is %u", known->name, settings[i].name, value);
        return true;
    }
    return false;
}

static bool settings_are_wrong(struct link *link, const struct known *known, char *text,
                               size_t size)
{
    const struct nlattr *table[IFLA_MAX + 1];
    const struct nlmsghdr *answer;
    struct netlink_reply reply;
    struct request request;

    request_init(&request);
    mnl_attr_put_u32(request_link(&request, RTM_GETLINK, 0, known->index, "read"), IFLA_EXT_MASK,
                     RTEXT_FILTER_SKIP_STATS);
    if (netlink_get(&link->host, &request, &reply, &answer) < 0)
        return false;
    netlink_parse_message(answer, sizeof(struct ifinfomsg), table, IFLA_MAX);
    if (!table[IFLA_AF_SPEC])
        return false;
    struct values ipv4 = family_values(table[IFLA_AF_SPEC], AF_INET, IFLA_INET_CONF);
    struct values ipv6 = family_values(table[IFLA_AF_SPEC], AF_INET6, IFLA_INET6_CONF);
    return ipv4_is_wrong(known, &ipv4, text, size) || ipv6_is_wrong(known, &ipv6, text, size);
}

/* Asked for one by one (Linux 5.0 on; what an older one answers counts as right). */
static bool proxy_is_missing(struct link *link, const struct known *known, const struct ip *ip,
                             char *text, size_t size)
{
    const struct nlmsghdr *answer;
    struct netlink_reply reply;
    struct request request;
    char address[IP_TEXT_MAX];
    void *extra;

    if (!ip_is_set(ip) || known->bridge == 0)
        return false;
    request_init(&request);
    struct nlmsghdr *message =
        request_add(&request, RTM_GETNEIGH, 0, sizeof(struct ndmsg), &extra, "read the proxy of");
    struct ndmsg *header = extra;
    header->ndm_family = ip->family;
    header->ndm_ifindex = (int)known->bridge;
    header->ndm_flags = NTF_PROXY;
    mnl_attr_put(message, NDA_DST, ip_bits(ip->family) / 8, ip->bytes);
    if (netlink_get(&link->host, &request, &reply, &answer) != -ENOENT)
        return false;
    snprintf(text, size, "the host does not answer for %s, which is behind %s, on its bridge",
             ip_format(ip, address), known->name);
    return true;
}

bool settings_find_wrong(struct link *link, const struct known *known, char *ret_text, size_t size)
{
    if (known->retired || (known->kind != KNOWN_BRIDGE && known->kind != KNOWN_ROUTED))
        return false;
    return settings_are_wrong(link, known, ret_text, size) ||
           (known->kind == KNOWN_ROUTED &&
            (proxy_is_missing(link, known, &known->ip, ret_text, size) ||
             proxy_is_missing(link, known, &known->ip6, ret_text, size)));
}

/* --- patrol --- */

struct window {
    size_t from, position;
    struct known *items;
    size_t count, capacity;
};

static void window_take(const struct known *known, void *userdata)
{
    struct window *window = userdata;

    if (window->position++ >= window->from && window->count < window->capacity)
        window->items[window->count++] = *known;
}

/* The links from position *at on, at most `count`; *at is moved, to 0 after the last one. */
static void window_read(struct link *link, size_t *at, size_t count, struct window *ret_window)
{
    *ret_window = (struct window){.from = *at, .capacity = count};
    ret_window->items = calloc(count + 1, sizeof(*ret_window->items));
    if (!ret_window->items)
        return;
    known_each(&link->shared->known, window_take, ret_window);
    *at = ret_window->from + ret_window->count < ret_window->position
              ? ret_window->from + ret_window->count
              : 0;
}

/* The index of the first that is wrong, 0 for none. */
static uint32_t window_look(struct link *link, const struct window *window, char *text, size_t size)
{
    for (size_t i = 0; i < window->count; i++)
        if (settings_find_wrong(link, &window->items[i], text, size))
            return window->items[i].index;
    return 0;
}

uint32_t settings_patrol(struct link *link, size_t *at, size_t count)
{
    struct window window;
    char text[256];

    window_read(link, at, count, &window);
    uint32_t index = window_look(link, &window, text, sizeof(text));
    free(window.items);
    return index;
}

bool link_settings_check(struct link *link, char *ret_wrong, size_t size)
{
    struct window window;
    size_t at = 0;

    window_read(link, &at, known_count(&link->shared->known), &window);
    bool right = window_look(link, &window, ret_wrong, size) == 0;
    free(window.items);
    return right;
}
