/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The handle: sockets and files of the host's namespace that stay open, so that the hot path opens
 * none, and the helpers that several files of link/ use. */
#include "link.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "handle.h"

#define BRIDGE_NF_FILE "/proc/sys/net/bridge/bridge-nf-call-iptables"
#define ARP_IGNORE_FILE "/proc/sys/net/ipv4/conf/all/arp_ignore"
#define IPV6_CONF_DIRECTORY "/proc/sys/net/ipv6/conf"

/* ------------------------------------------------------------------------------- the handle */
static int link_open_home(struct link *link, struct error *error)
{
    struct stat status;

    link->home_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (link->home_fd < 0 || fstat(link->home_fd, &status) < 0)
        return error_set(error, errno, "cannot open the host's network namespace");
    link->home_dev = status.st_dev;
    link->home_ino = status.st_ino;
    link->query_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (link->query_fd < 0)
        return error_set(error, errno, "cannot open a socket");
    return 0;
}

/* Each may be missing: no br_netfilter (yet), no /proc/sys, no IPv6. */
static void link_open_settings(struct link *link)
{
    link->bridge_nf_fd = open(BRIDGE_NF_FILE, O_RDONLY | O_CLOEXEC);
    link->arp_ignore_fd = open(ARP_IGNORE_FILE, O_RDONLY | O_CLOEXEC);
    struct error no_ipv6 = ERROR_INIT;
    if (fault_point("link.ipv6", &no_ipv6) == 0)
        link->ipv6_conf_fd = open(IPV6_CONF_DIRECTORY, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Indexes of links that a former moatd made are taken: the count goes on behind them. */
static int index_start(struct link *link, struct error *error)
{
    _cleanup_free_ struct link_info *links = NULL;
    size_t count = 0;

    int r = link_list_all(link, &links, &count, error);
    for (size_t i = 0; r == 0 && i < count; i++)
        if (links[i].index >= link->shared->next_index && links[i].index < LINK_INDEX_END)
            link->shared->next_index = links[i].index + 1;
    return r;
}

/* A handle with sockets and files of its own. */
static int link_new(struct link_shared *shared, bool beside, struct link **ret_link,
                    struct error *error)
{
    struct link *link = calloc(1, sizeof(*link));

    if (!link)
        return error_set(error, ENOMEM, "cannot make a link handle");
    link->shared = shared;
    link->beside = beside;
    link->host = NETLINK_INIT;
    link->home_fd = link->query_fd = link->packet_fd = -1;
    link->bridge_nf_fd = link->arp_ignore_fd = link->ipv6_conf_fd = -1;
    int r = link_open_home(link, error);
    if (r == 0)
        r = netlink_open(&link->host, error);
    if (r < 0) {
        link_close(link);
        return r;
    }
    link_open_settings(link);
    assert(shared->n_ports < HANDLES_MAX);
    shared->ports[shared->n_ports++] = link->host.port;
    *ret_link = link;
    return 0;
}

const struct cidr link_router6 = {.ip = {.family = AF_INET6, .bytes = {0xfe, 0x80, [15] = 1}},
                                  .prefix = 64};

bool link_port_is_ours(const struct link *link, uint32_t port)
{
    for (unsigned i = 0; i < link->shared->n_ports; i++)
        if (link->shared->ports[i] == port)
            return true;
    return false;
}

int link_open(struct link **ret_link, struct error *error)
{
    struct link_shared *shared = calloc(1, sizeof(*shared));
    struct link *link;

    if (!shared)
        return error_set(error, ENOMEM, "cannot make a link handle");
    known_init(&shared->known);
    shared->next_index = LINK_INDEX_BASE;
    int r = link_new(shared, false, &link, error);
    if (r < 0)
        return r;
    r = index_start(link, error);
    if (r == 0)
        r = reaper_new(&shared->reaper, error);
    if (r < 0) {
        link_close(link);
        return r;
    }
    reaper_kick(shared->reaper); /* what a crash left in the dying group */
    *ret_link = link;
    return 0;
}

int link_open_beside(const struct link *link, struct link **ret_link, struct error *error)
{
    return link_new(link->shared, true, ret_link, error);
}

static void shared_free(struct link_shared *shared)
{
    reaper_free(shared->reaper);
    known_deinit(&shared->known);
    free(shared);
}

static void port_remove(struct link_shared *shared, uint32_t port)
{
    for (unsigned i = 0; i < shared->n_ports; i++)
        if (shared->ports[i] == port)
            shared->ports[i--] = shared->ports[--shared->n_ports];
}

static void close_set(int fd)
{
    if (fd >= 0)
        close(fd);
}

void link_close(struct link *link)
{
    if (!link)
        return;
    link_watch_stop(link);
    port_remove(link->shared, link->host.port);
    if (!link->beside)
        shared_free(link->shared);
    netlink_close(&link->host);
    close_set(link->home_fd);
    close_set(link->query_fd);
    close_set(link->packet_fd);
    close_set(link->bridge_nf_fd);
    close_set(link->arp_ignore_fd);
    close_set(link->ipv6_conf_fd);
    free(link);
}

void link_reaper_wait(struct link *link)
{
    reaper_wait(link->shared->reaper);
}

/* ------------------------------------------------------------------------------- lookups */
uint32_t link_index(const struct link *link, const char *name)
{
    struct ifreq query = {0};

    if (strlen(name) >= sizeof(query.ifr_name))
        return 0;
    memcpy(query.ifr_name, name, strlen(name));
    return ioctl(link->query_fd, SIOCGIFINDEX, &query) < 0 ? 0 : (uint32_t)query.ifr_ifindex;
}

bool link_exists(struct link *link, const char *name)
{
    return link_index(link, name) != 0;
}

bool link_name_find(uint32_t index, char ret_name[IFNAMSIZ])
{
    return if_indextoname(index, ret_name) != NULL;
}

uint32_t link_index_next(struct link *link)
{
    _Atomic uint32_t *next = &link->shared->next_index;
    uint32_t index = atomic_fetch_add(next, 1);

    if (index < LINK_INDEX_END)
        return index;
    atomic_store(next,
                 LINK_INDEX_BASE + 1); /* at worst two threads begin anew: EBUSY is tried on */
    return LINK_INDEX_BASE;
}

int link_get(struct netlink *netlink, uint32_t index, const char *name,
             struct link_state *ret_state)
{
    const struct nlmsghdr *answer;
    struct netlink_reply reply;
    struct request request;

    request_init(&request);
    struct nlmsghdr *message = request_link(&request, RTM_GETLINK, 0, index, "read");
    if (name)
        mnl_attr_put_strz(message, IFLA_IFNAME, name);
    mnl_attr_put_u32(message, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    int r = netlink_get(netlink, &request, &reply, &answer);
    return r < 0 ? r : link_parse(answer, ret_state);
}

int link_find(struct link *link, const char *name, struct link_state *ret_state, bool *ret_found,
              struct error *error)
{
    int r = link_get(&link->host, 0, name, ret_state);

    if (r < 0 && r != -ENODEV)
        return error_set_kernel(error, r, NULL, "cannot read the link %s", name);
    *ret_found = r == 0;
    return 0;
}

/* ------------------------------------------------------------------------------- settings */
/* One digit is what all of these hold; anything but "0" counts as on. */
static bool setting_is_on(int fd)
{
    char digit;

    return fd >= 0 && pread(fd, &digit, 1, 0) == 1 && digit != '0';
}

bool link_bridge_nf(struct link *link)
{
    if (link->bridge_nf_fd < 0) /* the module may have come since */
        link->bridge_nf_fd = open(BRIDGE_NF_FILE, O_RDONLY | O_CLOEXEC);
    return setting_is_on(link->bridge_nf_fd);
}

bool link_arp_ignores(const struct link *link)
{
    return setting_is_on(link->arp_ignore_fd);
}

bool link_has_ipv6(const struct link *link, uint32_t mtu)
{
    return link->ipv6_conf_fd >= 0 && mtu >= 1280;
}

int link_ipv6_check(const struct link *link, struct error *error)
{
    if (link->ipv6_conf_fd >= 0)
        return 0;
    return error_set_reason(error, REASON_NOT_SUPPORTED,
                            "the host's kernel has no IPv6 (or it was booted with ipv6.disable=1); "
                            "make the network without it");
}

int link_ipv6_set(const struct link *link, const char *name, const char *key, const char *value,
                  struct error *error)
{
    char path[IFNAMSIZ + 64];

    if (link->ipv6_conf_fd < 0)
        return 0;
    snprintf(path, sizeof(path), "%s/%s", name, key);
    _cleanup_close_ int fd = openat(link->ipv6_conf_fd, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0; /* an MTU below 1280: no IPv6 on this link */
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        return error_set(error, errno, "cannot set net.ipv6.conf.%s to %s", path, value);
    return 0;
}

/* ------------------------------------------------------------------------------- removal */
static void link_retire(struct link *link, uint32_t index)
{
    if (link->shared->watched) /* the watcher hears when the link is gone */
        known_retire(&link->shared->known, index);
    else
        known_remove(&link->shared->known, index);
}

void link_forget(struct link *link, uint32_t index, const char *name)
{
    struct known known;

    link_retire(link, index);
    if (known_find_name(&link->shared->known, name, &known))
        link_retire(link, known.index);
}

int link_discard(struct link *link, uint32_t index, const char *name, struct error *error)
{
    struct request request;

    link_forget(link, index, name);
    request_init(&request);
    request_dying(&request, index);
    int r = netlink_commit(&link->host, &request, name, error);
    reaper_kick(link->shared->reaper); /* whatever was answered, it may be in the group */
    return r;
}

int link_remove_by_name(struct link *link, const char *host_name, struct error *error)
{
    struct link_state state;
    bool found;

    int r = link_find(link, host_name, &state, &found, error);
    if (r < 0 || !found || !link_is_ours(state.info.group, state.info.alias))
        return r;
    return link_discard(link, state.info.index, host_name, error);
}

int link_remove_all(struct link *link, struct error *error)
{
    _cleanup_free_ struct link_info *links = NULL;
    size_t count = 0;

    int r = link_list(link, &links, &count, error);
    for (size_t i = 0; r == 0 && i < count; i++) {
        struct request request;

        link_forget(link, links[i].index, links[i].name);
        request_init(&request);
        struct nlmsghdr *message = request_link(&request, RTM_SETLINK, 0, links[i].index, "retire");
        mnl_attr_put_u32(message, IFLA_GROUP, LINK_GROUP_DYING);
        request_tolerate(&request, ENODEV);
        r = netlink_commit(&link->host, &request, links[i].name, error);
    }
    reaper_kick(link->shared->reaper);
    reaper_wait(link->shared->reaper);
    return r;
}
