/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RULEs of a policy: DEST[:PORT[-END]][/tcp|/udp|/icmp]. Parsing, formatting, and the plain meaning
 * of a policy, which what is compiled for the kernel is compared with. */
#pragma once

#include "base/address.h"
#include "base/error.h"
#include "base/list.h"

#define RULE_TEXT_MAX 320 /* the longest name, a port range and a protocol, with room */

enum rule_destination {
    RULE_ANY,     /* any */
    RULE_PUBLIC,  /* @public */
    RULE_PRIVATE, /* @private: what is not public */
    RULE_PREFIX,  /* an address or CIDR */
    RULE_NAME,    /* example.org */
    RULE_BELOW,   /* *.example.org: every name below, not itself */
    RULE_BOTH,    /* .example.org: itself and every name below */
};

struct policy_rule {
    enum rule_destination destination;
    struct cidr prefix; /* RULE_PREFIX; without host bits */
    char name[254];     /* of a domain rule: lower case, without "*.", "." or a dot at the end */
    uint8_t protocol;   /* 0: every one; IPPROTO_TCP, _UDP, or _ICMP, which means ICMPv6 for IPv6 */
    uint16_t port;      /* 0: every port */
    uint16_t port_end;  /* last of the range; 0 with port 0 */
};

/* A port without a protocol means TCP and UDP. IPv6 stands in brackets where a port follows, CIDRs
 * too: [2001:db8::/32]:443. Errors are field errors named `field` (""
 * is not named in the text); text may be any string. */
int policy_rule_parse(const char *text, const char *field, struct policy_rule *ret_rule,
                      struct error *error);
/* The shortest form, which policy_rule_parse reads back. Returns text. */
const char *policy_rule_format(const struct policy_rule *rule, char text[RULE_TEXT_MAX]);
bool policy_rule_is_domain(const struct policy_rule *rule);
/* Does a domain rule speak of this name (any case, with or without a dot at the end)? */
bool policy_rule_covers_name(const struct policy_rule *rule, const char *name);

struct policy_rules {
    struct policy_rule *items;
    size_t count;
};

/* Parses all of them; fields are called `field`[0], `field`[1], …. */
int policy_rules_parse(const struct strings *texts, const char *field,
                       struct policy_rules *ret_rules, struct error *error);
void policy_rules_deinit(struct policy_rules *rules);

/* Prefixes that are never public, whatever the host: private (RFC 1918, 4193), shared (6598),
 * link-local with cloud metadata, loopback, benchmarks, multicast, reserved, and IPv6 forms that
 * carry an IPv4 address which may be one of them. They don't overlap. */
const struct cidr *policy_private_prefixes(size_t *ret_count);

/* One attempt of a guest to open a connection. */
struct policy_flow {
    struct ip ip;
    bool own; /* an address of the host or of one of its networks */
    uint8_t protocol;
    uint16_t port;            /* TCP and UDP */
    const char *const *names; /* for which the guest was given this address */
    size_t n_names;
};

bool policy_flow_is_public(const struct policy_flow *flow);
/* The two halves of policy_rule_matches: where to; and protocol and port (and the family, for
 * icmp).
 */
bool policy_rule_covers_destination(const struct policy_rule *rule, const struct policy_flow *flow);
bool policy_rule_covers_service(const struct policy_rule *rule, const struct policy_flow *flow);
/* A domain rule matches the addresses that the guest was given for a name of it, but never the
 * host's own and those of its networks. */
bool policy_rule_matches(const struct policy_rule *rule, const struct policy_flow *flow);
/* Are there domain rules? Then ports 53 and 853 (DNS; RFC 7858, 9250) are closed but for allow
 * rules that have a port: else other name servers would tell the guest what ours does not. */
bool policy_has_domains(const struct policy_rules *allow, const struct policy_rules *deny);
bool policy_port_is_dns(uint8_t protocol, uint16_t port);
/* What a policy means: deny wins; with any allow rule everything else is denied. ret_rule (may be
 * NULL): the rule that decided, NULL when none did. */
bool policy_allows(const struct policy_rules *allow, const struct policy_rules *deny,
                   const struct policy_flow *flow, const struct policy_rule **ret_rule);

/* May the guest ask the outside for this name? A deny rule that leaves nothing of it open (without
 * port and protocol) says no; with domain rules among the allowed ones, one of them must cover it.
 * ret_rule as above. */
bool policy_allows_name(const struct policy_rules *allow, const struct policy_rules *deny,
                        const char *name, const struct policy_rule **ret_rule);
