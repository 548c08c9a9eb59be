/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ready.h"

#include <assert.h>
#include <linux/if_addr.h>
#include <string.h>
#include <time.h>

#include "base/log.h"

#define READY_POLL_US 250
#define READY_WAIT_US 100000
#define GROUPS_MAX 4

/* Does a thing until it says that it is ready. */
static void poll_until(bool (*is_ready)(void *subject), void *subject, uint32_t index,
                       const char *what)
{
    static const struct timespec pause = {.tv_nsec = READY_POLL_US * 1000L};

    for (unsigned waited_us = 0; waited_us < READY_WAIT_US; waited_us += READY_POLL_US) {
        if (is_ready(subject))
            return;
        nanosleep(&pause, NULL);
    }
    log_debug("the link with index %u has no %s yet", index, what);
}

/* --- carrier --- */

struct subject {
    struct netlink *netlink;
    uint32_t index;
    struct ip groups[GROUPS_MAX];
    size_t count;
    bool joined[GROUPS_MAX];
};

/* A kernel from 6.9 on does what its link watch has queued for a link that is asked for
 * (linkwatch_sync_dev in rtnl_getlink). */
static bool has_carrier(void *userdata)
{
    const struct subject *subject = userdata;
    struct link_state state;

    return link_get(subject->netlink, subject->index, NULL, &state) < 0 || state.operational;
}

void ready_await_carrier(struct netlink *netlink, uint32_t index)
{
    struct subject subject = {.netlink = netlink, .index = index};

    poll_until(has_carrier, &subject, index, "carrier");
}

/* --- groups --- */

static struct ip solicited_node(const struct ip *address)
{
    struct ip group = {.family = AF_INET6,
                       .bytes = {0xff, 0x02, [11] = 1, [12] = 0xff, address->bytes[13],
                                 address->bytes[14], address->bytes[15]}};

    return group;
}

static int group_take(const struct nlmsghdr *message, void *userdata)
{
    struct subject *subject = userdata;
    const struct nlattr *table[IFA_MAX + 1];
    const struct ifaddrmsg *header;

    if (!message) {
        memset(subject->joined, 0, sizeof(subject->joined));
        return 0;
    }
    header = mnl_nlmsg_get_payload(message);
    netlink_parse_message(message, sizeof(*header), table, IFA_MAX);
    struct ip group = attribute_ip(AF_INET6, table[IFA_MULTICAST]);
    for (size_t i = 0; i < subject->count; i++)
        if (header->ifa_index == subject->index && ip_equal(&group, &subject->groups[i]))
            subject->joined[i] = true;
    return 0;
}

/* What the kernel doesn't tell can't be waited for. */
static bool has_groups(void *userdata)
{
    struct subject *subject = userdata;
    struct request request;
    size_t joined = 0;
    void *extra;

    memset(subject->joined, 0, sizeof(subject->joined));
    request_init(&request);
    request_add(&request, RTM_GETMULTICAST, 0, sizeof(struct ifaddrmsg), &extra, "read groups of");
    struct ifaddrmsg *header = extra;
    header->ifa_family = AF_INET6;
    header->ifa_index = subject->index;
    if (netlink_dump(subject->netlink, &request, group_take, subject) < 0)
        return true;
    for (size_t i = 0; i < subject->count; i++)
        joined += subject->joined[i];
    return joined == subject->count;
}

void ready_await_groups(struct netlink *netlink, uint32_t index, const struct ip *addresses,
                        size_t count)
{
    struct subject subject = {.netlink = netlink, .index = index, .count = count};

    assert(count <= GROUPS_MAX);
    for (size_t i = 0; i < count; i++)
        subject.groups[i] = solicited_node(&addresses[i]);
    poll_until(has_groups, &subject, index, "IPv6 groups");
}
