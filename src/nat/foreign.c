/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/foreign.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "nat/foreign_walk.h"
#include "nat/table.h"

#define LOAD_TRIES 5
#define LOAD_TRIES_YIELDING 2

struct foreign {
    struct nat *nat;
    struct nftnl_chain **chains;
    size_t n_chains;
    struct nftnl_rule **rules; /* those of a chain in their order */
    size_t n_rules;
    size_t loading; /* a chain whose table's rules are being read */
    struct foreign_legacy *legacy;
    struct foreign_legacy *legacy6;
};

/* --- loading --- */

static const char *family_name(uint32_t family)
{
    return family == NFPROTO_INET   ? "inet"
           : family == NFPROTO_IPV4 ? "ip"
           : family == NFPROTO_IPV6 ? "ip6"
                                    : NULL;
}

static bool is_foreign(uint32_t family, const char *table)
{
    return family_name(family) && table &&
           !(family == NFPROTO_INET && strcmp(table, RULESET_TABLE) == 0);
}

/* Lists of pointers, which only the type of differs. */
static int push(void *list, size_t *count, void *item)
{
    void ***items = list;
    void **grown = list_grow(*items, *count, sizeof(*grown));

    if (!grown)
        return -ENOMEM;
    *items = grown;
    grown[(*count)++] = item;
    return 0;
}

static int chain_parse(const struct nlmsghdr *message, void *userdata)
{
    struct foreign *foreign = userdata;
    struct nftnl_chain *chain = nftnl_chain_alloc();
    int result = -EPROTO;

    if (!chain)
        return -ENOMEM;
    if (nftnl_chain_nlmsg_parse(message, chain) >= 0)
        result = is_foreign(nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY),
                            nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE))
                     ? push(&foreign->chains, &foreign->n_chains, chain)
                     : 1;
    if (result != 0)
        nftnl_chain_free(chain);
    return result > 0 ? 0 : result;
}

static int rule_parse(const struct nlmsghdr *message, void *userdata)
{
    struct foreign *foreign = userdata;
    struct nftnl_rule *rule = nftnl_rule_alloc();
    int result = -EPROTO;

    if (!rule)
        return -ENOMEM;
    if (nftnl_rule_nlmsg_parse(message, rule) >= 0)
        result = is_foreign(nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY),
                            nftnl_rule_get_str(rule, NFTNL_RULE_TABLE))
                     ? push(&foreign->rules, &foreign->n_rules, rule)
                     : 1;
    if (result != 0)
        nftnl_rule_free(rule);
    return result > 0 ? 0 : result;
}

static void every_family(struct nlmsghdr *message, void *userdata)
{
    struct nfgenmsg *extra = mnl_nlmsg_get_payload(message);

    (void)userdata;
    extra->nfgen_family = NFPROTO_UNSPEC;
}

static void forget_rules(struct foreign *foreign)
{
    for (size_t i = 0; i < foreign->n_chains; i++)
        nftnl_chain_free(foreign->chains[i]);
    for (size_t i = 0; i < foreign->n_rules; i++)
        nftnl_rule_free(foreign->rules[i]);
    free(foreign->chains);
    free(foreign->rules);
    foreign->chains = NULL;
    foreign->rules = NULL;
    foreign->n_chains = foreign->n_rules = 0;
}

/* The table of a chain. */
static void table_build(struct nlmsghdr *message, void *userdata)
{
    const struct foreign *foreign = userdata;
    const struct nftnl_chain *chain = foreign->chains[foreign->loading];

    mnl_attr_put_strz(message, NFTA_RULE_TABLE, nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE));
}

/* The kernel gives the chains of a table in one go. */
static bool begins_table(const struct foreign *foreign, size_t index)
{
    const struct nftnl_chain *chain = foreign->chains[index];
    const struct nftnl_chain *before = index > 0 ? foreign->chains[index - 1] : NULL;

    return !before ||
           nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY) !=
               nftnl_chain_get_u32(before, NFTNL_CHAIN_FAMILY) ||
           strcmp(nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE),
                  nftnl_chain_get_str(before, NFTNL_CHAIN_TABLE)) != 0;
}

/* Table by table: our own, which others' changes and ours go through all the time, is left out. */
static int load_rules_once(struct foreign *foreign, struct nft_socket *socket, struct error *error)
{
    int result = nft_socket_get(socket, NFPROTO_INET, NFT_MSG_GETCHAIN, true, every_family,
                                chain_parse, foreign, error);

    for (size_t i = 0; (result == 0 || result == -ENOENT) && i < foreign->n_chains; i++) {
        uint32_t family = nftnl_chain_get_u32(foreign->chains[i], NFTNL_CHAIN_FAMILY);

        if (!begins_table(foreign, i))
            continue;
        foreign->loading = i;
        result = nft_socket_get(socket, (uint8_t)family, NFT_MSG_GETRULE, true, table_build,
                                rule_parse, foreign, error);
    }
    return result;
}

/* At last without anybody in between. */
static int load_rules(struct foreign *foreign, struct error *error)
{
    int result = -EINTR;

    for (int i = 0; i < LOAD_TRIES && result == -EINTR; i++) {
        forget_rules(foreign);
        result = load_rules_once(
            foreign, i < LOAD_TRIES_YIELDING ? foreign->nat->reader : foreign->nat->socket, error);
    }
    if (result == -EINTR)
        return error_set(error, EINTR, "nftables changes all the time");
    return result == -ENOENT ? 0 : result;
}

DEFINE_CLEANUP(struct foreign, foreign_free)

int foreign_load(struct nat *nat, struct foreign **ret_foreign, struct error *error)
{
    _cleanup_(foreign_freep) struct foreign *foreign = calloc(1, sizeof(*foreign));
    int result;

    if (!foreign)
        return error_set(error, ENOMEM, "cannot read the rules of others");
    foreign->nat = nat;
    result = load_rules(foreign, error);
    if (result >= 0)
        result = foreign_legacy_load(AF_INET, &foreign->legacy, error);
    if (result >= 0)
        result = foreign_legacy_load(AF_INET6, &foreign->legacy6, error);
    if (result < 0)
        return result;
    *ret_foreign = TAKE_PTR(foreign);
    return 0;
}

void foreign_free(struct foreign *foreign)
{
    if (!foreign)
        return;
    forget_rules(foreign);
    foreign_legacy_free(foreign->legacy);
    foreign_legacy_free(foreign->legacy6);
    free(foreign);
}

/* --- following --- */

enum foreign_verdict foreign_conclude(bool dropped, const struct foreign_doubts *doubts)
{
    if (dropped)
        return doubts->accepted ? FOREIGN_UNSURE : FOREIGN_DROPS;
    return doubts->dropped ? FOREIGN_UNSURE : FOREIGN_PASSES;
}

/* One packet on its way through one base chain. */
struct walk {
    const struct foreign *foreign;
    const struct foreign_packet *packet;
    uint32_t family;
    const char *table;
    struct foreign_doubts doubts;
};

static bool rule_is_in(const struct walk *walk, const struct nftnl_rule *rule, const char *chain)
{
    return nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY) == walk->family &&
           strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), walk->table) == 0 &&
           strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN), chain) == 0;
}

static enum foreign_action chain_follow(struct walk *walk, const char *chain, unsigned depth);

/* What the rule leads to: one of NONE, ACCEPT, DROP, RETURN. */
static enum foreign_action step_resolve(struct walk *walk, const struct foreign_step *step,
                                        unsigned depth)
{
    enum foreign_action action;

    switch (step->action) {
    case ACTION_UNKNOWN:
        walk->doubts = (struct foreign_doubts){true, true};
        return ACTION_NONE;
    case ACTION_JUMP:
        return chain_follow(walk, step->chain, depth + 1);
    case ACTION_GOTO:
        action = chain_follow(walk, step->chain, depth + 1);
        return action == ACTION_NONE ? ACTION_RETURN : action;
    default:
        return step->action;
    }
}

static void doubt(struct walk *walk, enum foreign_action action)
{
    walk->doubts.accepted |= action == ACTION_ACCEPT || action == ACTION_RETURN;
    walk->doubts.dropped |= action == ACTION_DROP || action == ACTION_RETURN;
}

/* NONE at the end of the chain, else ACCEPT or DROP. */
static enum foreign_action chain_follow(struct walk *walk, const char *chain, unsigned depth)
{
    const struct foreign *foreign = walk->foreign;

    for (size_t i = 0; depth <= FOREIGN_DEPTH_MAX && i < foreign->n_rules; i++) {
        struct foreign_step step;
        enum foreign_action action;

        if (!rule_is_in(walk, foreign->rules[i], chain))
            continue;
        foreign_rule_follow(foreign->nat, foreign->rules[i], walk->packet, &step);
        if (step.match == MATCH_NO)
            continue;
        action = step_resolve(walk, &step, depth);
        if (action == ACTION_NONE)
            continue;
        if (step.match == MATCH_YES)
            return action == ACTION_RETURN ? ACTION_NONE : action;
        doubt(walk, action);
    }
    return ACTION_NONE;
}

static bool chain_sees(const struct nftnl_chain *chain, const struct foreign_packet *packet)
{
    uint32_t family = nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY);
    const char *type = nftnl_chain_get_str(chain, NFTNL_CHAIN_TYPE);

    return nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM) &&
           nftnl_chain_get_u32(chain, NFTNL_CHAIN_HOOKNUM) == packet->hook && type &&
           strcmp(type, "filter") == 0 &&
           (family == NFPROTO_INET ||
            family == (packet->source.family == AF_INET6 ? NFPROTO_IPV6 : NFPROTO_IPV4));
}

static enum foreign_verdict base_follow(const struct foreign *foreign,
                                        const struct nftnl_chain *chain,
                                        const struct foreign_packet *packet)
{
    struct walk walk = {
        .foreign = foreign,
        .packet = packet,
        .family = nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY),
        .table = nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE),
    };
    enum foreign_action end = chain_follow(&walk, nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME), 0);
    bool dropped =
        end == ACTION_DROP ||
        (end == ACTION_NONE && nftnl_chain_get_u32(chain, NFTNL_CHAIN_POLICY) == NF_DROP);

    return foreign_conclude(dropped, &walk.doubts);
}

enum foreign_verdict foreign_base_ask(const struct foreign *foreign,
                                      const struct nftnl_chain *chain,
                                      const struct foreign_packet *packet)
{
    return chain_sees(chain, packet) ? base_follow(foreign, chain, packet) : FOREIGN_PASSES;
}

const struct nftnl_chain *foreign_chain_get(const struct foreign *foreign, size_t index)
{
    return index < foreign->n_chains ? foreign->chains[index] : NULL;
}

const struct nftnl_rule *foreign_rule_get(const struct foreign *foreign, size_t index)
{
    return index < foreign->n_rules ? foreign->rules[index] : NULL;
}

/* The worst answer counts, and the first of those. */
static void answer_add(struct foreign_answer *answer, enum foreign_verdict verdict,
                       const char *family, const char *table, const char *chain)
{
    if (verdict <= answer->verdict)
        return;
    answer->verdict = verdict;
    snprintf(answer->by, sizeof(answer->by), "%s %s %s", family, table, chain);
}

void foreign_ask(const struct foreign *foreign, const struct foreign_packet *packet,
                 struct foreign_answer *ret_answer)
{
    bool six = packet->source.family == AF_INET6;
    const struct foreign_legacy *legacy = six ? foreign->legacy6 : foreign->legacy;
    struct foreign_answer answer = {.verdict = FOREIGN_PASSES};

    for (size_t i = 0; i < foreign->n_chains; i++) {
        const struct nftnl_chain *chain = foreign->chains[i];

        answer_add(&answer, foreign_base_ask(foreign, chain, packet),
                   family_name(nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY)),
                   nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE),
                   nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME));
    }
    if (legacy)
        answer_add(&answer, foreign_legacy_ask(legacy, packet),
                   six ? "ip6tables-legacy" : "iptables-legacy", "filter",
                   packet->hook == NF_INET_FORWARD ? "FORWARD" : "INPUT");
    *ret_answer = answer;
}
