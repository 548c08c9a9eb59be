/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rules of ours in chains of others. They say what iptables-nft and ufw can read back: source or
 * destination in a prefix, accept, and a comment by which they are known to be ours. Each chain is
 * a transaction of its own: one that refuses does not keep the others from theirs. */
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "base/log.h"
#include "nat/foreign_walk.h"
#include "nat/rule.h"
#include "nat/table.h"

#define MARK "moat: "
#define NO_LINK "moat-routed" /* as a routed port's, of which others' rules know nothing */
#define RULE_ROOM 1024

/* Where an administrator's own rules belong, before what the program makes itself. */
static const char *const user_chains[] = {"DOCKER-USER", "ufw-user-forward", "ufw6-user-forward"};

static bool family_sees(uint32_t family, const struct cidr *subnet)
{
    return family == NFPROTO_INET ||
           family == (subnet->ip.family == AF_INET6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
}

/* --- those that are there --- */

/* Is the rule ours, and for which prefix? */
static bool mark_read(const struct nftnl_rule *rule, struct cidr *ret_subnet)
{
    const char *comment = rule_comment_get(rule);

    return comment && strncmp(comment, MARK, strlen(MARK)) == 0 &&
           cidr_parse(comment + strlen(MARK), ret_subnet) == 0;
}

static bool is_wanted(const struct foreign_accept *wanted, size_t count, const struct cidr *subnet)
{
    for (size_t i = 0; i < count; i++)
        if (cidr_equal(&wanted[i].subnet, subnet))
            return true;
    return false;
}

static void append_deletion(struct nft_transaction *transaction, const struct nftnl_rule *rule)
{
    struct nlmsghdr *message = nft_transaction_open(transaction, NFT_MSG_DELRULE, 0, RULE_ROOM,
                                                    "a rule in a chain of another firewall");

    if (!message)
        return;
    mnl_attr_put_strz(message, NFTA_RULE_TABLE, nftnl_rule_get_str(rule, NFTNL_RULE_TABLE));
    mnl_attr_put_strz(message, NFTA_RULE_CHAIN, nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN));
    mnl_attr_put_u64(message, NFTA_RULE_HANDLE,
                     htobe64(nftnl_rule_get_u64(rule, NFTNL_RULE_HANDLE)));
    nft_transaction_close(transaction, message);
}

static int delete_one(struct nat *nat, const struct nftnl_rule *rule, struct error *error)
{
    struct nft_transaction transaction;
    int result;

    nft_transaction_init(&transaction, (uint8_t)nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY));
    append_deletion(&transaction, rule);
    result = nft_socket_commit(nat->socket, &transaction, error);
    nft_transaction_deinit(&transaction);
    return result;
}

static void delete_unwanted(struct nat *nat, const struct foreign *foreign,
                            const struct foreign_accept *wanted, size_t count)
{
    const struct nftnl_rule *rule;

    for (size_t i = 0; (rule = foreign_rule_get(foreign, i)); i++) {
        struct error error = ERROR_INIT;
        struct cidr subnet;

        if (mark_read(rule, &subnet) && !is_wanted(wanted, count, &subnet) &&
            delete_one(nat, rule, &error) < 0 && error.errnum != ENOENT)
            log_warning("%s", error.text);
    }
}

/* --- those that are missing --- */

static void write_prefix(struct rule *rule, bool six, bool source, const struct cidr *subnet)
{
    uint32_t size = six ? 16 : 4;
    uint32_t offset = (six ? 8u : 12u) + (source ? 0 : size);
    struct ip first = cidr_first(subnet);
    uint8_t mask[16] = {0};

    for (unsigned i = 0; i < subnet->prefix; i++)
        mask[i / 8] |= (uint8_t)(0x80u >> i % 8);
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, offset, size, 0);
    rule_mask(rule, mask, size);
    rule_compare(rule, NFT_CMP_EQ, first.bytes, size);
}

static void append_accept(struct nft_transaction *transaction, const char *table, const char *chain,
                          const struct cidr *subnet, bool source)
{
    bool six = subnet->ip.family == AF_INET6;
    char comment[sizeof(MARK) + CIDR_TEXT_MAX];
    char text[CIDR_TEXT_MAX];
    struct rule rule;
    struct nftnl_rule *built;
    struct nlmsghdr *message;

    snprintf(comment, sizeof(comment), MARK "%s", cidr_format(subnet, text));
    rule_init(&rule, table, chain, comment, NULL);
    rule_set_family(&rule, transaction->family);
    if (transaction->family == NFPROTO_INET) {
        rule_load_meta(&rule, NFT_META_NFPROTO, 0);
        rule_compare_u8(&rule, NFT_CMP_EQ, six ? NFPROTO_IPV6 : NFPROTO_IPV4);
    }
    write_prefix(&rule, six, source, subnet);
    (void)rule_add(&rule, "counter");
    rule_verdict(&rule, NF_ACCEPT, NULL);
    built = rule_finish(&rule);
    message = nft_transaction_open(transaction, NFT_MSG_NEWRULE, NLM_F_CREATE, RULE_ROOM,
                                   "a rule in a chain of another firewall");
    if (built && message)
        nftnl_rule_nlmsg_build_payload(message, built);
    transaction->failed |= !built;
    if (message)
        nft_transaction_close(transaction, message);
    if (built)
        nftnl_rule_free(built);
}

static const char *chain_choose(const struct foreign *foreign, const struct nftnl_chain *base)
{
    const struct nftnl_chain *chain;

    for (size_t i = 0; (chain = foreign_chain_get(foreign, i)); i++) {
        const char *name = nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME);

        if (nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY) !=
                nftnl_chain_get_u32(base, NFTNL_CHAIN_FAMILY) ||
            strcmp(nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE),
                   nftnl_chain_get_str(base, NFTNL_CHAIN_TABLE)) != 0)
            continue;
        for (size_t j = 0; j < ARRAY_SIZE(user_chains); j++)
            if (strcmp(name, user_chains[j]) == 0)
                return name;
    }
    return nftnl_chain_get_str(base, NFTNL_CHAIN_NAME);
}

static int open_one(struct nat *nat, const struct foreign *foreign, const struct nftnl_chain *base,
                    const struct cidr *subnet, struct error *error)
{
    const char *table = nftnl_chain_get_str(base, NFTNL_CHAIN_TABLE);
    const char *chain = chain_choose(foreign, base);
    const struct nftnl_rule *rule;
    struct nft_transaction transaction;
    int result;

    nft_transaction_init(&transaction, (uint8_t)nftnl_chain_get_u32(base, NFTNL_CHAIN_FAMILY));
    for (size_t i = 0; (rule = foreign_rule_get(foreign, i));
         i++) { /* half of it, or out of place */
        struct cidr marked;

        if (nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY) == transaction.family &&
            strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), table) == 0 &&
            mark_read(rule, &marked) && cidr_equal(&marked, subnet))
            append_deletion(&transaction, rule);
    }
    append_accept(&transaction, table, chain, subnet, true);
    append_accept(&transaction, table, chain, subnet, false);
    result = nft_socket_commit(nat->socket, &transaction, error);
    nft_transaction_deinit(&transaction);
    if (result >= 0) {
        char text[CIDR_TEXT_MAX];

        log_info("what is from and to %s is accepted in the chain %s of %s now",
                 cidr_format(subnet, text), chain, table);
    }
    return result;
}

/* Does the chain stop anything of what guests of the network send and get? */
static bool is_stopped(const struct foreign *foreign, const struct nftnl_chain *base,
                       const struct foreign_accept *accept)
{
    const char *const links[] = {accept->link, NO_LINK};

    for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
        struct foreign_packet packet = {
            .hook = NF_INET_FORWARD,
            .source = accept->guest,
            .destination = accept->far,
            .protocol = IPPROTO_TCP,
            .source_port = 40000,
            .destination_port = 443,
        };

        snprintf(packet.in, sizeof(packet.in), "%s", links[i]);
        snprintf(packet.out, sizeof(packet.out), "%s", accept->way_out);
        if (foreign_base_ask(foreign, base, &packet) != FOREIGN_PASSES)
            return true;
        packet.source = accept->far;
        packet.destination = accept->guest;
        packet.published = true;
        snprintf(packet.in, sizeof(packet.in), "%s", accept->way_out);
        snprintf(packet.out, sizeof(packet.out), "%s", links[i]);
        if (foreign_base_ask(foreign, base, &packet) != FOREIGN_PASSES)
            return true;
    }
    return false;
}

static int add_missing(struct nat *nat, const struct foreign *foreign,
                       const struct foreign_accept *wanted, size_t count, struct error *error)
{
    const struct nftnl_chain *base;
    int result = 0;

    for (size_t i = 0; (base = foreign_chain_get(foreign, i)); i++) {
        uint32_t family = nftnl_chain_get_u32(base, NFTNL_CHAIN_FAMILY);

        for (size_t j = 0; j < count; j++) {
            struct error refused = ERROR_INIT;

            if (!family_sees(family, &wanted[j].subnet) || !is_stopped(foreign, base, &wanted[j]) ||
                open_one(nat, foreign, base, &wanted[j].subnet, &refused) >= 0)
                continue;
            *error = refused;
            result = refused.errnum ? -refused.errnum : -EIO;
        }
    }
    return result;
}

int foreign_accept_all(struct nat *nat, const struct foreign_accept *wanted, size_t count,
                       struct error *error)
{
    struct foreign *foreign = NULL;
    int result = foreign_load(nat, &foreign, error);

    if (result < 0)
        return result;
    delete_unwanted(nat, foreign, wanted, count);
    result = add_missing(nat, foreign, wanted, count, error);
    foreign_free(foreign);
    return result;
}
