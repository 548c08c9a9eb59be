/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How much a guest may send and receive a second, on the host's side of its port.
 *
 *   to the guest     the host end sends: a token bucket (tc-tbf(8)) at its root
 *   from the guest   the host end receives, where nothing can be held back: all of it is led over
 * an intermediate link (ifb), a token bucket at its root, and goes on from there as if it had come
 * in by the host end
 *
 *     host end ── ingress ── u32: everything ── mirred ──► ifb ── tbf ──► host end
 *
 * Nothing here is inside the guest. A rate that changes changes its bucket; what is queued stays.
 * The host end's own settings go with it; the ifb is a link of ours with its own mark. */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/tc_act/tc_mirred.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "handle.h"

#define BUCKET_HANDLE (0x6du << 16) /* 'm': tells our qdisc from another's */
#define INGRESS_HANDLE 0xffff0000u
#define FILTER_PRIORITY 1u
#define FRAME_OVERHEAD 18u    /* Ethernet header and a tag */
#define BURST_PER_SECOND 100  /* of a rate: what may go at once is that of 10 ms … */
#define BURST_FRAMES 4u       /* … and some whole frames */
#define BURST_MAX 262144u     /* bytes */
#define QUEUE_PER_SECOND 10   /* what may wait is that of 100 ms … */
#define QUEUE_FRAMES 24       /* … and some frames, else a slow rate would carry nothing else */
#define QUEUE_MAX (16u << 20) /* bytes */

/* --- messages --- */

static struct nlmsghdr *request_tc(struct request *request, uint16_t type, uint16_t flags,
                                   uint32_t index, uint32_t parent, uint32_t handle,
                                   const char *what)
{
    void *extra;
    struct nlmsghdr *message =
        request_add(request, type, flags, sizeof(struct tcmsg), &extra, what);
    struct tcmsg *header = extra;

    header->tcm_family = AF_UNSPEC;
    header->tcm_ifindex = (int)index;
    header->tcm_parent = parent;
    header->tcm_handle = handle;
    return message;
}

static uint32_t clamp(uint64_t value, uint64_t min, uint64_t max)
{
    return (uint32_t)(value < min ? min : value > max ? max : value);
}

/* A token bucket of that rate, or another rate for the one that is there. */
static void request_bucket(struct request *request, uint32_t index, uint64_t rate_bits,
                           uint32_t mtu)
{
    const uint64_t bytes = rate_bits / 8;
    const uint32_t frame = mtu + FRAME_OVERHEAD;
    const uint32_t whole = BURST_FRAMES * frame;
    const uint32_t burst =
        clamp(bytes / BURST_PER_SECOND, whole, whole > BURST_MAX ? whole : BURST_MAX);
    const struct tc_tbf_qopt parameters = {
        .rate = {.rate = bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes,
                 .linklayer = TC_LINKLAYER_ETHERNET},
        .limit = burst + clamp(bytes / QUEUE_PER_SECOND, QUEUE_FRAMES * (uint64_t)frame, QUEUE_MAX),
    };
    struct nlmsghdr *message = request_tc(request, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE,
                                          index, TC_H_ROOT, BUCKET_HANDLE, "limit the rate of");

    mnl_attr_put_strz(message, TCA_KIND, "tbf");
    struct nlattr *options = mnl_attr_nest_start(message, TCA_OPTIONS);
    mnl_attr_put(message, TCA_TBF_PARMS, sizeof(parameters), &parameters);
    mnl_attr_put_u32(message, TCA_TBF_BURST, burst);
    if (bytes > UINT32_MAX)
        mnl_attr_put_u64(message, TCA_TBF_RATE64, bytes);
    mnl_attr_nest_end(message, options);
}

/* Fine when it has none of ours. */
static void request_no_bucket(struct request *request, uint32_t index)
{
    request_tc(request, RTM_DELQDISC, 0, index, TC_H_ROOT, BUCKET_HANDLE, "end the limit of");
    request_tolerate(request, ENOENT);
    request_tolerate(request, EINVAL); /* another's is there */
}

static void request_ingress(struct request *request, uint32_t index)
{
    struct nlmsghdr *message = request_tc(request, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, index,
                                          TC_H_INGRESS, INGRESS_HANDLE, "look at what comes in by");

    mnl_attr_put_strz(message, TCA_KIND, "ingress");
}

/* With all filters on it. */
static void request_no_ingress(struct request *request, uint32_t index)
{
    request_tc(request, RTM_DELQDISC, 0, index, TC_H_INGRESS, INGRESS_HANDLE,
               "no longer look at what comes in by");
    request_tolerate(request, ENOENT);
    request_tolerate(request, EINVAL);
}

static void put_redirect(struct nlmsghdr *message, uint32_t to_index)
{
    const struct tc_mirred parameters = {
        .action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = to_index};
    struct nlattr *actions = mnl_attr_nest_start(message, TCA_U32_ACT);
    struct nlattr *action = mnl_attr_nest_start(message, 1);

    mnl_attr_put_strz(message, TCA_ACT_KIND, "mirred");
    struct nlattr *options = mnl_attr_nest_start(message, TCA_ACT_OPTIONS);
    mnl_attr_put(message, TCA_MIRRED_PARMS, sizeof(parameters), &parameters);
    mnl_attr_nest_end(message, options);
    mnl_attr_nest_end(message, action);
    mnl_attr_nest_end(message, actions);
}

/* Everything that comes in by `index` goes to `to_index`. */
static void request_redirect(struct request *request, uint32_t index, uint32_t to_index)
{
    const struct tc_u32_sel selector = {.flags = TC_U32_TERMINAL, .nkeys = 1};
    uint8_t everything[sizeof(selector) + sizeof(struct tc_u32_key)] = {0}; /* a key of no bits */
    struct nlmsghdr *message = request_tc(request, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, index,
                                          INGRESS_HANDLE, 0, "lead on what comes in by");
    struct tcmsg *header = mnl_nlmsg_get_payload(message);

    memcpy(everything, &selector, sizeof(selector));
    header->tcm_info = TC_H_MAKE(FILTER_PRIORITY << 16, htons(ETH_P_ALL));
    mnl_attr_put_strz(message, TCA_KIND, "u32");
    struct nlattr *options = mnl_attr_nest_start(message, TCA_OPTIONS);
    mnl_attr_put(message, TCA_U32_SEL, sizeof(everything), everything);
    put_redirect(message, to_index);
    mnl_attr_nest_end(message, options);
}

/* --- the link between --- */

static void request_between(struct request *request, const struct link_shape *shape)
{
    struct nlmsghdr *message =
        request_link(request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, "make");

    message_set_up(message, false);
    mnl_attr_put_strz(message, IFLA_IFNAME, shape->between);
    mnl_attr_put_u32(message, IFLA_GROUP, LINK_GROUP_BETWEEN);
    mnl_attr_put_u32(message, IFLA_MTU, shape->mtu);
    struct nlattr *info = mnl_attr_nest_start(message, IFLA_LINKINFO);
    mnl_attr_put_strz(message, IFLA_INFO_KIND, "ifb");
    mnl_attr_nest_end(message, info);
}

/* Its bucket is there before it carries anything. */
static int between_bring_up(struct link *link, const struct link_shape *shape, uint32_t index,
                            struct error *error)
{
    struct request request;

    request_init(&request);
    struct nlmsghdr *message = request_link(&request, RTM_SETLINK, 0, index, "set up");
    mnl_attr_put_strz(message, IFLA_IFALIAS, shape->alias);
    mnl_attr_put_u32(message, IFLA_MTU, shape->mtu);
    if (link_has_ipv6(link, shape->mtu))
        message_put_settings(message, NULL, 0, true);
    request_bucket(&request, index, shape->rate_up, shape->mtu);
    request_up(&request, index, true, "bring up");
    return netlink_commit(&link->host, &request, shape->between, error);
}

static int between_remember(struct link *link, const struct link_shape *shape, uint32_t index,
                            struct error *error)
{
    struct known known = {
        .kind = KNOWN_BETWEEN, .index = index, .group = LINK_GROUP_BETWEEN, .mtu = shape->mtu};

    memcpy(known.name, shape->between, sizeof(known.name));
    if (known_set(&link->shared->known, &known) < 0)
        return error_set(error, ENOMEM, "cannot remember the link %s", shape->between);
    return 0;
}

/* ret_made: it was not there. */
static int between_ensure(struct link *link, const struct link_shape *shape, uint32_t *ret_index,
                          bool *ret_made, struct error *error)
{
    struct link_state state;
    struct request request;
    bool found;
    int r = link_find(link, shape->between, &state, &found, error);

    if (r == 0 && found && !link_is_ours(state.info.group, state.info.alias))
        return error_set_reason(error, REASON_IN_USE,
                                "the host has a link %s already that is not moat's",
                                shape->between);
    if (r == 0 && found && state.info.group == LINK_GROUP_DYING) {
        reaper_wait(link->shared->reaper);
        found = false;
    }
    if (r == 0 && !found) {
        request_init(&request);
        request_between(&request, shape);
        r = netlink_commit(&link->host, &request, shape->between, error);
    }
    if (r < 0)
        return r;
    *ret_made = !found;
    *ret_index = link_index(link, shape->between);
    r = between_bring_up(link, shape, *ret_index, error);
    return r < 0 ? r : between_remember(link, shape, *ret_index, error);
}

/* --- both directions --- */

/* What comes in by the host end is led to the link between, and to no other. */
static int redirect_set(struct link *link, const struct link_shape *shape, uint32_t index,
                        uint32_t to_index, struct error *error)
{
    struct request request;

    request_init(&request);
    request_no_ingress(&request, index);
    request_ingress(&request, index);
    request_redirect(&request, index, to_index);
    return netlink_commit(&link->host, &request, shape->host_name, error);
}

static int filter_take(const struct nlmsghdr *message, void *userdata)
{
    bool *found = userdata;

    *found = message && (*found || message->nlmsg_type == RTM_NEWTFILTER);
    return 0;
}

static int redirect_find(struct link *link, const struct link_shape *shape, uint32_t index,
                         bool *ret_found, struct error *error)
{
    struct request request;

    *ret_found = false;
    request_init(&request);
    request_tc(&request, RTM_GETTFILTER, 0, index, INGRESS_HANDLE, 0, "read");
    int r = netlink_dump(&link->host, &request, filter_take, ret_found);
    if (r < 0 && r != -EINVAL && r != -ENOENT)
        return error_set_kernel(error, r, NULL, "cannot read what is led from %s",
                                shape->host_name);
    return 0;
}

static int up_ensure(struct link *link, const struct link_shape *shape, uint32_t index,
                     struct error *error)
{
    uint32_t between = 0;
    bool made = false;
    bool led = false;
    int r = between_ensure(link, shape, &between, &made, error);

    if (r == 0 && !made)
        r = redirect_find(link, shape, index, &led, error);
    if (r == 0 && !led)
        r = redirect_set(link, shape, index, between, error);
    return r;
}

static int up_remove(struct link *link, const struct link_shape *shape, uint32_t index,
                     struct error *error)
{
    struct request request;
    int r = 0;

    request_init(&request);
    if (index != 0 && link_index(link, shape->between) != 0) {
        request_no_ingress(&request, index);
        r = netlink_commit(&link->host, &request, shape->host_name, error);
    }
    return r < 0 ? r : link_remove_by_name(link, shape->between, error);
}

static int down_set(struct link *link, const struct link_shape *shape, uint32_t index,
                    struct error *error)
{
    struct request request;

    request_init(&request);
    if (shape->rate_down > 0)
        request_bucket(&request, index, shape->rate_down, shape->mtu);
    else
        request_no_bucket(&request, index);
    return netlink_commit(&link->host, &request, shape->host_name, error);
}

/* The kernel's answer to a kind that it does not have. */
static int explain(int r, struct error *error)
{
    if (r != -ENOENT && r != -EOPNOTSUPP)
        return r;
    return error_set_reason(error, REASON_NOT_SUPPORTED,
                            "this kernel can't limit rates: it needs sch_tbf, and for what guests "
                            "send sch_ingress, cls_u32, act_mirred and ifb as well");
}

int link_shape_set(struct link *link, const struct link_shape *shape, struct error *error)
{
    uint32_t index = link_index(link, shape->host_name);
    int r = fault_point("link.shape", error);

    if (r == 0 && index == 0)
        return error_set_reason(error, REASON_NOT_FOUND, "the link %s is gone", shape->host_name);
    if (r == 0)
        r = down_set(link, shape, index, error);
    if (r == 0)
        r = shape->rate_up > 0 ? up_ensure(link, shape, index, error)
                               : up_remove(link, shape, index, error);
    return explain(r, error);
}

int link_shape_remove(struct link *link, const struct link_shape *shape, struct error *error)
{
    return link_remove_by_name(link, shape->between, error);
}
