/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `moat localhost`: inside a guest, 127.0.0.1:PORT reaches the gateway of its network where nothing
 * in the guest itself listens; TCP and UDP.
 *
 * Whether something listens can only be asked when a packet comes in (nf_tables' socket
 * expression), and a packet to 127.0.0.1 comes in through lo, where connection tracking does not
 * translate any more what it saw going out. So inside the guest nothing is tracked and addresses
 * are rewritten packet by packet:
 *
 *   127.0.0.1:a → 127.0.0.1:b   goes out to lo, untracked, and comes in from lo:
 *        a socket for it?  it passes.
 *        none:             it goes to the gateway as GUEST:a → WIRE:b
 *   WIRE:b → GUEST:a            comes back, and is delivered as 127.0.0.1:b → 127.0.0.1:a
 *
 * WIRE is a link-local address that stands for "localhost" between guest and host. The host
 * translates it, for endpoints that have this switched on only, to a published port or to the
 * gateway (rules_translation.c), and so the host's own loopback is never meant.
 *
 * The interface needs route_localnet for that, which by itself would open the guest's loopback to
 * its neighbours: loopback addresses from outside are dropped first. From WIRE, which a neighbour
 * may pretend to be, come only answers: no opening SYN, and UDP only to ports that asked. Errors
 * about WIRE come from WIRE or, where the host refused before it translated, from the gateway. */
#include "nat/nat.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <libnftnl/expr.h>
#include <libnftnl/set.h>
#include <linux/icmp.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4.h>
#include <sched.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "nat/rule.h"
#include "nat/ruleset.h"

#define TABLE "moat_localhost"
#define FLOWS "flows"
#define CHAIN_LOCAL "local"
#define LOOPBACK_INDEX 1
#define FLOW_TIMEOUT_MS                                                      \
    UINT64_C(180000) /* of a UDP flow, renewed by each packet of the guest's \
                      */
#define FLOWS_MAX 65536

static const uint8_t loopback[4] = {127, 0, 0, 1};
static const uint8_t wire[4] = {NAT_LOCALHOST_WIRE};

struct guest_side {
    struct ip guest;
    struct ip gateway;
    uint32_t index; /* of the interface */
};

/* --- words --- */

enum offset { OFFSET_SOURCE = 12, OFFSET_DESTINATION = 16 }; /* in the IPv4 header */

static const struct guest_side *side_of(const struct rule *rule)
{
    return rule->context;
}

static void from_loopback(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIF, 0);
    rule_compare_u32(rule, NFT_CMP_EQ, LOOPBACK_INDEX);
}

static void not_from_loopback(struct rule *rule)
{
    rule_load_meta(rule, NFT_META_IIF, 0);
    rule_compare_u32(rule, NFT_CMP_NEQ, LOOPBACK_INDEX);
}

static void address_is(struct rule *rule, enum offset offset, const uint8_t *address)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, offset, 4, 0);
    rule_compare(rule, NFT_CMP_EQ, address, 4);
}

static void to_localhost(struct rule *rule)
{
    address_is(rule, OFFSET_DESTINATION, loopback);
}

static void from_wire(struct rule *rule)
{
    address_is(rule, OFFSET_SOURCE, wire);
}

static void destination_loopback(struct rule *rule)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, OFFSET_DESTINATION, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, loopback[0]);
}

static void source_loopback(struct rule *rule)
{
    rule_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, OFFSET_SOURCE, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, loopback[0]);
}

static void protocol(struct rule *rule, uint8_t number)
{
    rule_load_meta(rule, NFT_META_L4PROTO, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, number);
}

static void tcp(struct rule *rule)
{
    protocol(rule, IPPROTO_TCP);
}

static void udp(struct rule *rule)
{
    protocol(rule, IPPROTO_UDP);
}

/* SYN without ACK: opens a connection. */
static void opening(struct rule *rule)
{
    static const uint8_t syn_ack = 0x12;

    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, 0);
    rule_mask(rule, &syn_ack, sizeof(syn_ack));
    rule_compare_u8(rule, NFT_CMP_EQ, 0x02);
}

/* Ports of the guest and of the other side, in this order, to the first registers. */
static void load_flow(struct rule *rule, bool answer)
{
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, answer ? 2 : 0, 2, 0);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, answer ? 0 : 2, 2, 1);
}

static void not_asked(struct rule *rule)
{
    load_flow(rule, true);
    rule_lookup(rule, FLOWS, RULE_LOOKUP_NOT);
}

static void remember(struct rule *rule)
{
    load_flow(rule, false);
    struct nftnl_expr *expr = rule_add(rule, "dynset");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_DYNSET_SREG_KEY, NFT_REG32_00);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
    rule->failed |= nftnl_expr_set_str(expr, NFTNL_EXPR_DYNSET_SET_NAME, FLOWS) < 0;
}

/* Any socket for this packet: the register is not looked at, without one the rule ends. */
static void has_socket(struct rule *rule)
{
    struct nftnl_expr *expr = rule_add(rule, "socket");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_SOCKET_KEY, NFT_SOCKET_TRANSPARENT);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_SOCKET_DREG, NFT_REG32_00);
}

static void untracked(struct rule *rule)
{
    rule_add(rule, "notrack");
}

static void write_payload(struct rule *rule, enum nft_payload_bases base, uint32_t offset,
                          const uint8_t *address, uint32_t checksum_offset, uint32_t flags)
{
    rule_load_value(rule, address, 4, 0);
    struct nftnl_expr *expr = rule_add(rule, "payload");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_SREG, NFT_REG32_00);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_BASE, base);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_LEN, 4);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_INET);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_CSUM_OFFSET, checksum_offset);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_PAYLOAD_FLAGS, flags);
}

/* With the checksums of IPv4, TCP and UDP. */
static void write_address(struct rule *rule, enum offset offset, const uint8_t *address)
{
    write_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, offset, address, 10,
                  NFT_PAYLOAD_L4CSUM_PSEUDOHDR);
}

static void as_from_localhost(struct rule *rule)
{
    write_address(rule, OFFSET_SOURCE, loopback);
}

/* From the gateway until it has passed routing, which refuses loopback sources. */
static void as_from_gateway_to_localhost(struct rule *rule)
{
    write_address(rule, OFFSET_SOURCE, side_of(rule)->gateway.bytes);
    write_address(rule, OFFSET_DESTINATION, loopback);
}

#define ICMP_QUOTE 8 /* where an ICMP error quotes the packet that it is about */

static void error_about_wire(struct rule *rule)
{
    protocol(rule, IPPROTO_ICMP);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
    rule_compare_u8(rule, NFT_CMP_EQ, ICMP_DEST_UNREACH);
    rule_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, ICMP_QUOTE + OFFSET_DESTINATION, 4, 0);
    rule_compare(rule, NFT_CMP_EQ, wire, sizeof(wire));
}

/* The quoted packet is what the guest's socket sent. */
static void quote_localhost(struct rule *rule)
{
    write_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, ICMP_QUOTE + OFFSET_SOURCE, loopback, 2, 0);
    write_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, ICMP_QUOTE + OFFSET_DESTINATION, loopback, 2,
                  0);
}

static void as_guest_to_wire(struct rule *rule)
{
    write_address(rule, OFFSET_SOURCE, side_of(rule)->guest.bytes);
    write_address(rule, OFFSET_DESTINATION, wire);
}

static void send_to_gateway(struct rule *rule)
{
    rule_load_value(rule, side_of(rule)->gateway.bytes, 4, 0);
    rule_load_value(rule, &side_of(rule)->index, sizeof(side_of(rule)->index), 1);
    struct nftnl_expr *expr = rule_add(rule, "dup");

    if (!expr)
        return;
    nftnl_expr_set_u32(expr, NFTNL_EXPR_DUP_SREG_ADDR, NFT_REG32_00);
    nftnl_expr_set_u32(expr, NFTNL_EXPR_DUP_SREG_DEV, NFT_REG32_00 + 1);
}

static void accept_it(struct rule *rule)
{
    rule_verdict(rule, NF_ACCEPT, NULL);
}

static void drop_it(struct rule *rule)
{
    rule_verdict(rule, NF_DROP, NULL);
}

static void goto_local(struct rule *rule)
{
    rule_verdict(rule, (uint32_t)NFT_GOTO, CHAIN_LOCAL);
}

/* --- the table --- */

static const struct nft_chain chains[] = {
    {"output", "filter", NF_INET_LOCAL_OUT, NF_IP_PRI_RAW},
    {"prerouting", "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW},
    {"input", "filter", NF_INET_LOCAL_IN, NF_IP_PRI_RAW},
    {CHAIN_LOCAL, NULL, 0, 0},
};

typedef void (*rule_word)(struct rule *rule);

#define RULE_WORDS 5

static const struct {
    const char *chain;
    const char *comment;
    rule_word words[RULE_WORDS];
} rules[] = {
    {"output", "TCP to localhost", {to_localhost, tcp, untracked}},
    {"output", "UDP to localhost", {to_localhost, udp, untracked}},

    {"prerouting", "TCP to localhost", {from_loopback, to_localhost, tcp, goto_local}},
    {"prerouting", "UDP to localhost", {from_loopback, to_localhost, udp, goto_local}},
    {"prerouting", "the guest itself", {from_loopback, accept_it}},
    {"prerouting", "no loopback source from outside", {source_loopback, drop_it}},
    {"prerouting", "no loopback destination from outside", {destination_loopback, drop_it}},
    {"prerouting", "answers only", {from_wire, tcp, opening, drop_it}},
    {"prerouting", "answers only", {from_wire, udp, not_asked, drop_it}},
    {"prerouting",
     "errors",
     {error_about_wire, quote_localhost, untracked, as_from_gateway_to_localhost}},
    {"prerouting", "answers", {from_wire, untracked, as_from_gateway_to_localhost}},

    {"input", "answers", {not_from_loopback, to_localhost, as_from_localhost}},

    {CHAIN_LOCAL, "somebody listens", {has_socket, accept_it}},
    {CHAIN_LOCAL, "asked", {udp, remember}},
    {CHAIN_LOCAL, "nobody: to the gateway", {as_guest_to_wire, send_to_gateway, drop_it}},
};

static struct nftnl_set *flows_build(void)
{
    struct nftnl_set *set = nftnl_set_alloc();

    if (!set)
        return NULL;
    nftnl_set_set_u32(set, NFTNL_SET_FAMILY, NFPROTO_IPV4);
    nftnl_set_set_u32(set, NFTNL_SET_FLAGS, NFT_SET_TIMEOUT | NFT_SET_EVAL);
    nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, 13 << 6 | 13); /* nft: inet_service . inet_service */
    nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, 8);
    nftnl_set_set_u32(set, NFTNL_SET_ID, 1);
    nftnl_set_set_u32(set, NFTNL_SET_DESC_SIZE, FLOWS_MAX);
    nftnl_set_set_u64(set, NFTNL_SET_TIMEOUT, FLOW_TIMEOUT_MS);
    if (nftnl_set_set_str(set, NFTNL_SET_TABLE, TABLE) == 0 &&
        nftnl_set_set_str(set, NFTNL_SET_NAME, FLOWS) == 0)
        return set;
    nftnl_set_free(set);
    return NULL;
}

static void append_table(struct nft_transaction *transaction, const struct guest_side *side)
{
    nft_transaction_add_table(transaction, TABLE, "moat localhost", 0);
    nft_transaction_add_set(transaction, flows_build(), "set " FLOWS);
    for (size_t i = 0; i < ARRAY_SIZE(chains); i++)
        nft_transaction_add_chain(transaction, TABLE, &chains[i]);
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        struct rule rule;

        rule_init(&rule, TABLE, rules[i].chain, rules[i].comment, side);
        for (size_t j = 0; j < RULE_WORDS && rules[i].words[j]; j++)
            rules[i].words[j](&rule);
        nft_transaction_add_rule(transaction, rule_finish(&rule), rules[i].comment);
    }
}

/* --- inside --- */

/* Opens a socket in the namespace and finds the interface there. The caller's thread is back in its
 * own namespace afterwards; if that fails nothing that the process does would be right any more. */
static int inside_open(int netns_fd, const char *interface, struct nft_socket **ret_socket,
                       uint32_t *ret_index, struct error *error)
{
    _cleanup_close_ int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

    if (own < 0)
        return error_set(error, errno, "cannot open the own network namespace");
    if (setns(netns_fd, CLONE_NEWNET) < 0)
        return error_set(error, errno, "cannot enter the guest's network namespace");
    int result = nft_socket_open(ret_socket, error);
    *ret_index = if_nametoindex(interface);
    if (setns(own, CLONE_NEWNET) < 0)
        abort();
    return result;
}

static int table_exists(const struct nlmsghdr *message, void *userdata)
{
    (void)message;
    *(bool *)userdata = true;
    return 0;
}

static void tables_build(struct nlmsghdr *message, void *userdata)
{
    struct nfgenmsg *extra = mnl_nlmsg_get_payload(message);

    (void)userdata;
    extra->nfgen_family = NFPROTO_IPV4;
    mnl_attr_put_strz(message, NFTA_TABLE_NAME, TABLE);
}

static int table_replace(struct nft_socket *socket, const struct guest_side *side, bool on,
                         struct error *error)
{
    struct nft_transaction transaction;
    bool exists = false;
    int result = nft_socket_get(socket, NFPROTO_INET, NFT_MSG_GETTABLE, false, tables_build,
                                table_exists, &exists, error);

    if (result < 0 && result != -ENOENT)
        return result;
    nft_transaction_init(&transaction, NFPROTO_IPV4);
    if (exists)
        nft_transaction_delete_table(&transaction, TABLE);
    if (on)
        append_table(&transaction, side);
    result = nft_socket_commit(socket, &transaction, error);
    nft_transaction_deinit(&transaction);
    return result;
}

int nat_localhost_set(int netns_fd, const char *interface, const struct ip *guest_ip,
                      const struct ip *gateway, bool on, struct error *error)
{
    _cleanup_(nft_socket_closep) struct nft_socket *socket = NULL;
    struct guest_side side = {.guest = *guest_ip, .gateway = *gateway};
    int result;

    if (on && (guest_ip->family != AF_INET || gateway->family != AF_INET))
        return error_set_reason(error, REASON_NOT_SUPPORTED,
                                "localhost needs a network with IPv4 and a gateway");
    result = inside_open(netns_fd, interface, &socket, &side.index, error);
    if (result < 0)
        return result;
    if (on && side.index == 0)
        return error_set_reason(error, REASON_NOT_FOUND, "the guest has no interface %s",
                                interface);
    result = table_replace(socket, &side, on, error);
    if (result < 0)
        error_add_context(error, "localhost");
    return result;
}
