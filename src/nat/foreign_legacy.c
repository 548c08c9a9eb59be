/* SPDX-License-Identifier: GPL-2.0-or-later */
/* iptables-legacy: the filter table as the kernel keeps it (linux/netfilter_ipv4/ip_tables.h), read
 * by getsockopt. A table is asked for only if it is in use already: the question alone would bring
 * it into being. An entry is followed by its header here, by its matches and target as elsewhere.
 */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/netfilter.h>
#include <linux/netfilter/x_tables.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>

#include "base/cleanup.h"
#include "nat/foreign_walk.h"

#define TABLE "filter"
#define STEPS_MAX 1000000 /* for one packet: the kernel admits no loops, but chains in chains */

/* One family: where its things are. */
struct layout {
    const char *names; /* of the tables in use */
    int level;
    int get_info;
    int get_entries;
    size_t entries_offset; /* in the answer */
    size_t target_offset;  /* in an entry: of its __u16 target_offset and next_offset */
    size_t next_offset;
    size_t matches; /* where those begin */
};

static const struct layout layout4 = {
    .names = "/proc/thread-self/net/ip_tables_names",
    .level = IPPROTO_IP,
    .get_info = IPT_SO_GET_INFO,
    .get_entries = IPT_SO_GET_ENTRIES,
    .entries_offset = offsetof(struct ipt_get_entries, entrytable),
    .target_offset = offsetof(struct ipt_entry, target_offset),
    .next_offset = offsetof(struct ipt_entry, next_offset),
    .matches = sizeof(struct ipt_entry),
};

static const struct layout layout6 = {
    .names = "/proc/thread-self/net/ip6_tables_names",
    .level = IPPROTO_IPV6,
    .get_info = IP6T_SO_GET_INFO,
    .get_entries = IP6T_SO_GET_ENTRIES,
    .entries_offset = offsetof(struct ip6t_get_entries, entrytable),
    .target_offset = offsetof(struct ip6t_entry, target_offset),
    .next_offset = offsetof(struct ip6t_entry, next_offset),
    .matches = sizeof(struct ip6t_entry),
};

struct foreign_legacy {
    const struct layout *layout;
    uint32_t begins[NF_INET_NUMHOOKS];   /* of each base chain */
    uint32_t policies[NF_INET_NUMHOOKS]; /* and its last entry */
    char *answer;                        /* the entries begin at entries_offset */
    const char *entries;
    size_t size;
};

/* --- reading --- */

static bool is_in_use(const struct layout *layout)
{
    _cleanup_fclose_ FILE *file = fopen(layout->names, "re");
    char line[64];

    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, TABLE) == 0)
            return true;
    }
    return false;
}

/* The two families' questions have the same members, and lie in memory alike. */
static int entries_read(struct foreign_legacy *legacy, int fd)
{
    const struct layout *layout = legacy->layout;
    struct ipt_getinfo info = {.name = TABLE};
    struct ipt_get_entries question = {.name = TABLE};
    socklen_t length = sizeof(info);

    if (getsockopt(fd, layout->level, layout->get_info, &info, &length) < 0)
        return -errno;
    question.size = info.size;
    length = (socklen_t)(layout->entries_offset + info.size);
    legacy->answer = calloc(1, length);
    if (!legacy->answer)
        return -ENOMEM;
    memcpy(legacy->answer, &question, offsetof(struct ipt_get_entries, entrytable));
    if (getsockopt(fd, layout->level, layout->get_entries, legacy->answer, &length) < 0)
        return -errno;
    memcpy(legacy->begins, info.hook_entry, sizeof(legacy->begins));
    memcpy(legacy->policies, info.underflow, sizeof(legacy->policies));
    legacy->entries = legacy->answer + layout->entries_offset;
    legacy->size = info.size;
    return 0;
}

DEFINE_CLEANUP(struct foreign_legacy, foreign_legacy_free)

int foreign_legacy_load(uint8_t family, struct foreign_legacy **ret_legacy, struct error *error)
{
    const struct layout *layout = family == AF_INET6 ? &layout6 : &layout4;
    _cleanup_(foreign_legacy_freep) struct foreign_legacy *legacy = NULL;
    _cleanup_close_ int fd = -1;
    int result = 0;

    *ret_legacy = NULL;
    if (!is_in_use(layout))
        return 0;
    legacy = calloc(1, sizeof(*legacy));
    if (!legacy)
        return error_set(error, ENOMEM, "cannot read the rules of others");
    legacy->layout = layout;
    fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* any does */
    for (int i = 0; fd >= 0 && i < 3; i++) { /* EAGAIN: it changed between the two questions */
        free(legacy->answer);
        legacy->answer = NULL;
        result = entries_read(legacy, fd);
        if (result != -EAGAIN)
            break;
    }
    if (fd < 0)
        result = -errno;
    if (result == -ENOENT)
        return 0;
    if (result < 0)
        return error_set(error, result, "cannot read the rules of iptables-legacy");
    *ret_legacy = TAKE_PTR(legacy);
    return 0;
}

void foreign_legacy_free(struct foreign_legacy *legacy)
{
    if (!legacy)
        return;
    free(legacy->answer);
    free(legacy);
}

/* --- following --- */

static bool name_differs(const char *name, const char *wanted, const unsigned char *mask)
{
    char padded[IFNAMSIZ] = "";

    snprintf(padded, sizeof(padded), "%s", name);
    for (size_t i = 0; i < IFNAMSIZ; i++)
        if ((padded[i] ^ wanted[i]) & mask[i])
            return true;
    return false;
}

static bool bytes_differ(const uint8_t *ip, const void *wanted, const void *mask, size_t size)
{
    const uint8_t *have = wanted;
    const uint8_t *bits = mask;

    for (size_t i = 0; i < size; i++)
        if ((ip[i] & bits[i]) != have[i])
            return true;
    return false;
}

/* The header of the rule; a part that is negated has its bit in the flags. */
static bool header4_matches(const struct ipt_ip *ip, const struct foreign_packet *packet)
{
    return bytes_differ(packet->source.bytes, &ip->src, &ip->smsk, 4) ==
               !!(ip->invflags & IPT_INV_SRCIP) &&
           bytes_differ(packet->destination.bytes, &ip->dst, &ip->dmsk, 4) ==
               !!(ip->invflags & IPT_INV_DSTIP) &&
           name_differs(packet->in, ip->iniface, ip->iniface_mask) ==
               !!(ip->invflags & IPT_INV_VIA_IN) &&
           name_differs(packet->out, ip->outiface, ip->outiface_mask) ==
               !!(ip->invflags & IPT_INV_VIA_OUT) &&
           (ip->proto == 0 || (ip->proto != packet->protocol) == !!(ip->invflags & XT_INV_PROTO)) &&
           (!(ip->flags & IPT_F_FRAG) || ip->invflags & IPT_INV_FRAG);
}

static bool header6_matches(const struct ip6t_ip6 *ip, const struct foreign_packet *packet)
{
    return bytes_differ(packet->source.bytes, &ip->src, &ip->smsk, 16) ==
               !!(ip->invflags & IP6T_INV_SRCIP) &&
           bytes_differ(packet->destination.bytes, &ip->dst, &ip->dmsk, 16) ==
               !!(ip->invflags & IP6T_INV_DSTIP) &&
           name_differs(packet->in, ip->iniface, ip->iniface_mask) ==
               !!(ip->invflags & IP6T_INV_VIA_IN) &&
           name_differs(packet->out, ip->outiface, ip->outiface_mask) ==
               !!(ip->invflags & IP6T_INV_VIA_OUT) &&
           (!(ip->flags & IP6T_F_PROTO) || ip->proto == 0 ||
            (ip->proto != packet->protocol) == !!(ip->invflags & XT_INV_PROTO));
}

static uint16_t u16_at(const char *entry, size_t offset)
{
    uint16_t value;

    memcpy(&value, entry + offset, sizeof(value));
    return value;
}

static enum foreign_match entry_matches(const struct foreign_legacy *legacy, const char *entry,
                                        const struct foreign_packet *packet)
{
    const struct layout *layout = legacy->layout;
    uint16_t target = u16_at(entry, layout->target_offset);
    enum foreign_match result = MATCH_YES;
    bool header =
        layout == &layout6
            ? header6_matches(&((const struct ip6t_entry *)(const void *)entry)->ipv6, packet)
            : header4_matches(&((const struct ipt_entry *)(const void *)entry)->ip, packet);

    if (!header)
        return MATCH_NO;
    for (size_t at = layout->matches; at + sizeof(struct xt_entry_match) <= target;) {
        const struct xt_entry_match *match = (const void *)(entry + at);
        enum foreign_match one;

        if (match->u.match_size < sizeof(*match) || match->u.match_size > target - at)
            return MATCH_MAYBE;
        one = foreign_xt_match(match->u.user.name, match->u.user.revision, match->data,
                               match->u.match_size - sizeof(*match));
        if (one < result)
            result = one;
        at += match->u.match_size;
    }
    return result;
}

struct walk {
    const struct foreign_legacy *legacy;
    const struct foreign_packet *packet;
    struct foreign_doubts doubts;
    unsigned steps;
};

static enum foreign_action chain_follow(struct walk *walk, size_t at, unsigned depth);

static bool goes_for_good(const struct layout *layout, const char *entry)
{
    return layout == &layout6
               ? ((const struct ip6t_entry *)(const void *)entry)->ipv6.flags & IP6T_F_GOTO
               : ((const struct ipt_entry *)(const void *)entry)->ip.flags & IPT_F_GOTO;
}

static enum foreign_action target_follow(struct walk *walk, const char *entry, unsigned depth)
{
    const struct layout *layout = walk->legacy->layout;
    const struct xt_entry_target *target =
        (const void *)(entry + u16_at(entry, layout->target_offset));
    const struct xt_standard_target *standard = (const void *)target;
    enum foreign_action action;

    if (target->u.user.name[0]) {
        action = foreign_xt_target(target->u.user.name);
        if (action != ACTION_UNKNOWN)
            return action;
        walk->doubts = (struct foreign_doubts){true, true};
        return ACTION_NONE;
    }
    if (standard->verdict == XT_RETURN)
        return ACTION_RETURN;
    if (standard->verdict < 0)
        return -standard->verdict - 1 == NF_ACCEPT ? ACTION_ACCEPT : ACTION_DROP;
    action = chain_follow(walk, (size_t)standard->verdict, depth + 1);
    return action == ACTION_NONE && goes_for_good(layout, entry) ? ACTION_RETURN : action;
}

/* From the entry at this offset on. NONE: the chain returned; ACCEPT or DROP. */
static enum foreign_action chain_follow(struct walk *walk, size_t at, unsigned depth)
{
    const struct foreign_legacy *legacy = walk->legacy;

    while (depth <= FOREIGN_DEPTH_MAX && at + legacy->layout->matches <= legacy->size &&
           walk->steps++ < STEPS_MAX) {
        const char *entry = legacy->entries + at;
        uint16_t next = u16_at(entry, legacy->layout->next_offset);
        enum foreign_match match = entry_matches(legacy, entry, walk->packet);
        enum foreign_action action =
            match == MATCH_NO ? ACTION_NONE : target_follow(walk, entry, depth);

        if (action != ACTION_NONE && match == MATCH_YES)
            return action == ACTION_RETURN ? ACTION_NONE : action;
        walk->doubts.accepted |= action == ACTION_ACCEPT || action == ACTION_RETURN;
        walk->doubts.dropped |= action == ACTION_DROP || action == ACTION_RETURN;
        if (next == 0)
            break;
        at += next;
    }
    return ACTION_NONE;
}

enum foreign_verdict foreign_legacy_ask(const struct foreign_legacy *legacy,
                                        const struct foreign_packet *packet)
{
    struct walk walk = {.legacy = legacy, .packet = packet};
    enum foreign_action end = chain_follow(&walk, legacy->begins[packet->hook], 0);

    if (end == ACTION_NONE)
        end = target_follow(&walk, legacy->entries + legacy->policies[packet->hook], 0);
    return foreign_conclude(end == ACTION_DROP, &walk.doubts);
}
