/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A rule is taken apart from its end: the protocol behind the last '/', the port behind the last
 * ':' that is no part of an IPv6 address, and what is left is the destination. */
#include "base/rule.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/name.h"

struct reader {
    const char *text; /* all of it, for messages */
    const char *field;
    struct error *error;
    char rest[RULE_TEXT_MAX]; /* what is not read yet; cut from its end */
};

static int refuse(const struct reader *reader, const char *why)
{
    return error_set_field(reader->error, reader->field, "%s%s\"%.80s\" %s", reader->field,
                           reader->field[0] ? ": " : "", reader->text, why);
}

/* --- protocol and port --- */

static const struct {
    const char *name;
    uint8_t number;
} protocols[] = {{"tcp", IPPROTO_TCP}, {"udp", IPPROTO_UDP}, {"icmp", IPPROTO_ICMP}};

static int read_protocol(struct reader *reader, struct policy_rule *rule)
{
    char *slash = strrchr(reader->rest, '/');

    if (!slash || isdigit((unsigned char)slash[1]))
        return 0; /* a prefix length */
    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
        if (strcmp(slash + 1, protocols[i].name) == 0)
            rule->protocol = protocols[i].number;
    if (!rule->protocol)
        return refuse(reader, "has another protocol than tcp, udp and icmp behind the /");
    *slash = '\0';
    return 0;
}

/* One port of 1–65535 in decimal, without leading zeros; the end of it, or NULL. */
static const char *scan_port(const char *text, uint16_t *ret_port)
{
    uint32_t port = 0;
    const char *at = text;

    for (; isdigit((unsigned char)*at) && at - text < 5; at++)
        port = port * 10 + (uint32_t)(*at - '0');
    if (at == text || *text == '0' || port > UINT16_MAX)
        return NULL;
    *ret_port = (uint16_t)port;
    return at;
}

static int read_port_text(struct reader *reader, const char *text, struct policy_rule *rule)
{
    const char *end = scan_port(text, &rule->port);

    rule->port_end = rule->port;
    if (end && *end == '-')
        end = scan_port(end + 1, &rule->port_end);
    if (!end || *end)
        return refuse(reader, "has a bad port: give 1 to 65535, or a range such as 8000-8010");
    if (rule->port_end < rule->port)
        return refuse(reader, "has a port range that ends before it begins");
    if (rule->protocol == IPPROTO_ICMP)
        return refuse(reader, "has a port, but icmp has none: leave the port out");
    return 0;
}

/* [IPv6] or [IPv6/N], with a port or /N behind it: the brackets go, "/N" stays with the address. */
static int read_brackets(struct reader *reader, struct policy_rule *rule)
{
    char *close = strchr(reader->rest, ']');
    char *colon;
    char address[RULE_TEXT_MAX];
    int result = 0;

    if (!close)
        return refuse(reader, "lacks the ] behind the address");
    colon = strchr(close, ':');
    if (colon)
        result = read_port_text(reader, colon + 1, rule);
    if (result < 0)
        return result;
    if (colon)
        *colon = '\0';
    *close = '\0';
    if (!strchr(reader->rest, ':') || (close[1] && (close[1] != '/' || strchr(reader->rest, '/'))))
        return refuse(reader, "is not [IPv6] or [IPv6/PREFIX], with :PORT behind the bracket");
    snprintf(address, sizeof(address), "%s%s", reader->rest + 1, close + 1);
    memcpy(reader->rest, address, sizeof(address));
    return 0;
}

static int read_port(struct reader *reader, struct policy_rule *rule)
{
    char *colon = strchr(reader->rest, ':');
    int result;

    if (reader->rest[0] == '[')
        return read_brackets(reader, rule);
    if (!colon || strchr(colon + 1, ':'))
        return 0; /* none, or a bare IPv6 address */
    result = read_port_text(reader, colon + 1, rule);
    *colon = '\0';
    return result;
}

/* --- destination --- */

static int read_prefix(struct reader *reader, struct policy_rule *rule)
{
    struct cidr prefix = {0};
    char text[CIDR_TEXT_MAX];
    char why[128];

    if (strchr(reader->rest, '/')) {
        if (cidr_parse(reader->rest, &prefix) < 0)
            return refuse(reader, "is not an ADDRESS/PREFIX");
    } else if (ip_parse(reader->rest, &prefix.ip) < 0) {
        return refuse(reader, "is not an address; an IPv6 address with a port is [ADDRESS]:PORT");
    } else {
        prefix.prefix = (uint8_t)ip_bits(prefix.ip.family);
    }
    if (cidr_has_host_bits(&prefix)) {
        struct cidr masked = cidr_mask(&prefix);

        snprintf(why, sizeof(why), "has bits behind its prefix; write %s",
                 cidr_format(&masked, text));
        return refuse(reader, why);
    }
    rule->destination = RULE_PREFIX;
    rule->prefix = prefix;
    return 0;
}

static bool looks_like_address(const char *text)
{
    return strchr(text, '/') || strchr(text, ':') ||
           (isdigit((unsigned char)text[0]) && text[strspn(text, "0123456789.")] == '\0');
}

static int read_domain(struct reader *reader, struct policy_rule *rule)
{
    const char *name = reader->rest;
    size_t length;

    rule->destination = RULE_NAME;
    if (name[0] == '*' && name[1] == '.') {
        rule->destination = RULE_BELOW;
        name += 2;
    } else if (name[0] == '.') {
        rule->destination = RULE_BOTH;
        name++;
    }
    length = strlen(name);
    if (length > 1 && name[length - 1] == '.')
        length--;
    if (length >= sizeof(rule->name))
        return refuse(reader, "is too long for a domain name");
    for (size_t i = 0; i < length; i++)
        rule->name[i] = (char)tolower((unsigned char)name[i]);
    rule->name[length] = '\0';
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] >= 0x80)
            return refuse(reader, "is not ASCII; write the domain in its xn-- form");
    if (!name_is_dns(rule->name))
        return refuse(reader, "is no destination: give an address, a CIDR, any, @public, "
                              "@private, DOMAIN, *.DOMAIN or .DOMAIN");
    if (rule->destination == RULE_NAME && !strchr(rule->name, '.'))
        return refuse(reader, "is no domain name: one has a dot; a guest is named by its address");
    return 0;
}

static int read_destination(struct reader *reader, struct policy_rule *rule)
{
    if (strcmp(reader->rest, "any") == 0)
        rule->destination = RULE_ANY;
    else if (strcmp(reader->rest, "@public") == 0)
        rule->destination = RULE_PUBLIC;
    else if (strcmp(reader->rest, "@private") == 0)
        rule->destination = RULE_PRIVATE;
    else if (reader->rest[0] == '@')
        return refuse(reader, "is no group of addresses: there are @public and @private");
    else if (looks_like_address(reader->rest))
        return read_prefix(reader, rule);
    else
        return read_domain(reader, rule);
    return 0;
}

int policy_rule_parse(const char *text, const char *field, struct policy_rule *ret_rule,
                      struct error *error)
{
    struct reader reader = {.text = text, .field = field, .error = error};
    struct policy_rule rule = {0};
    int result;

    if (strnlen(text, RULE_TEXT_MAX) >= RULE_TEXT_MAX - 1)
        return refuse(&reader, "is too long for a rule");
    if (!text[0])
        return refuse(&reader, "is empty; a rule is DEST[:PORT[-END]][/tcp|/udp|/icmp]");
    memcpy(reader.rest, text, strlen(text) + 1);
    result = read_protocol(&reader, &rule);
    if (result == 0)
        result = read_port(&reader, &rule);
    if (result == 0)
        result = read_destination(&reader, &rule);
    if (result == 0)
        *ret_rule = rule;
    return result;
}

/* --- formatting --- */

static const char *format_prefix(const struct policy_rule *rule, char text[RULE_TEXT_MAX])
{
    char address[CIDR_TEXT_MAX];
    bool brackets = rule->port && rule->prefix.ip.family == AF_INET6;

    if (rule->prefix.prefix == ip_bits(rule->prefix.ip.family))
        ip_format(&rule->prefix.ip, address);
    else
        cidr_format(&rule->prefix, address);
    snprintf(text, RULE_TEXT_MAX, brackets ? "[%s]" : "%s", address);
    return text;
}

static const char *format_destination(const struct policy_rule *rule, char text[RULE_TEXT_MAX])
{
    static const char *const prefixes[] = {
        [RULE_NAME] = "", [RULE_BELOW] = "*.", [RULE_BOTH] = "."};

    switch (rule->destination) {
    case RULE_ANY:
        return "any";
    case RULE_PUBLIC:
        return "@public";
    case RULE_PRIVATE:
        return "@private";
    case RULE_PREFIX:
        return format_prefix(rule, text);
    case RULE_NAME:
    case RULE_BELOW:
    case RULE_BOTH:
        break;
    }
    snprintf(text, RULE_TEXT_MAX, "%s%s", prefixes[rule->destination], rule->name);
    return text;
}

const char *policy_rule_format(const struct policy_rule *rule, char text[RULE_TEXT_MAX])
{
    char destination[RULE_TEXT_MAX];
    char port[16] = "";
    const char *protocol = "";

    if (rule->port && rule->port_end != rule->port)
        snprintf(port, sizeof(port), ":%u-%u", rule->port, rule->port_end);
    else if (rule->port)
        snprintf(port, sizeof(port), ":%u", rule->port);
    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
        if (rule->protocol == protocols[i].number)
            protocol = protocols[i].name;
    snprintf(text, RULE_TEXT_MAX, "%s%s%s%s", format_destination(rule, destination), port,
             protocol[0] ? "/" : "", protocol);
    return text;
}

/* --- lists --- */

int policy_rules_parse(const struct strings *texts, const char *field,
                       struct policy_rules *ret_rules, struct error *error)
{
    struct policy_rules rules = {0};
    char name[64];

    if (texts->count)
        rules.items = calloc(texts->count, sizeof(*rules.items));
    if (texts->count && !rules.items)
        return error_set(error, ENOMEM, "rules");
    for (; rules.count < texts->count; rules.count++) {
        snprintf(name, sizeof(name), "%s[%zu]", field, rules.count);
        int result =
            policy_rule_parse(texts->items[rules.count], name, &rules.items[rules.count], error);
        if (result < 0) {
            policy_rules_deinit(&rules);
            return result;
        }
    }
    *ret_rules = rules;
    return 0;
}

void policy_rules_deinit(struct policy_rules *rules)
{
    free(rules->items);
    *rules = (struct policy_rules){0};
}

/* --- domains --- */

bool policy_rule_is_domain(const struct policy_rule *rule)
{
    return rule->destination >= RULE_NAME;
}

bool policy_rule_covers_name(const struct policy_rule *rule, const char *name)
{
    size_t length = strlen(name);
    size_t suffix = strlen(rule->name);

    if (length > 0 && name[length - 1] == '.')
        length--;
    if (!policy_rule_is_domain(rule) || length < suffix ||
        strncasecmp(name + length - suffix, rule->name, suffix) != 0)
        return false;
    if (length == suffix)
        return rule->destination != RULE_BELOW;
    return rule->destination != RULE_NAME && name[length - suffix - 1] == '.';
}

/* --- meaning --- */

/* clang-format off */
#define V4(a, b, c, d, bits) {{AF_INET, {(a), (b), (c), (d)}}, (bits)}
#define V6(a, b, c, d, e, f, bits) {{AF_INET6, {(a), (b), (c), (d), (e), (f)}}, (bits)}
/* 64:ff9b::/96, RFC 6052: a NAT64 on the way leads to the IPv4 address in its end. */
#define NAT64(a, b, c, d, bits) \
    {{AF_INET6, {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, (a), (b), (c), (d)}}, 96 + (bits)}
/* clang-format on */

static const struct cidr private_prefixes[] = {
    V4(0, 0, 0, 0, 8),                 /* this host */
    V4(10, 0, 0, 0, 8),                /* private */
    V4(100, 64, 0, 0, 10),             /* shared */
    V4(127, 0, 0, 0, 8),               /* loopback */
    V4(169, 254, 0, 0, 16),            /* link-local, metadata */
    V4(172, 16, 0, 0, 12),             /* private */
    V4(192, 0, 0, 0, 24),              /* protocol assignments, metadata */
    V4(192, 168, 0, 0, 16),            /* private */
    V4(198, 18, 0, 0, 15),             /* benchmarks */
    V4(224, 0, 0, 0, 3),               /* multicast, reserved, broadcast */
    V6(0, 0, 0, 0, 0, 0, 16),          /* ::, ::1, IPv4-mapped and -compatible */
    V6(0, 0x64, 0xff, 0x9b, 0, 1, 48), /* local NAT64, RFC 8215 */
    V6(1, 0, 0, 0, 0, 0, 64),          /* discard only */
    V6(0x20, 1, 0, 0, 0, 0, 32),       /* Teredo */
    V6(0x20, 2, 0, 0, 0, 0, 16),       /* 6to4 */
    V6(0xfc, 0, 0, 0, 0, 0, 7),        /* unique local */
    V6(0xfe, 0x80, 0, 0, 0, 0, 9),     /* link-local, site-local */
    V6(0xff, 0, 0, 0, 0, 0, 8),        /* multicast */
    NAT64(0, 0, 0, 0, 8),
    NAT64(10, 0, 0, 0, 8),
    NAT64(100, 64, 0, 0, 10),
    NAT64(127, 0, 0, 0, 8),
    NAT64(169, 254, 0, 0, 16),
    NAT64(172, 16, 0, 0, 12),
    NAT64(192, 0, 0, 0, 24),
    NAT64(192, 168, 0, 0, 16),
    NAT64(198, 18, 0, 0, 15),
    NAT64(224, 0, 0, 0, 3),
};

const struct cidr *policy_private_prefixes(size_t *ret_count)
{
    *ret_count = ARRAY_SIZE(private_prefixes);
    return private_prefixes;
}

bool policy_flow_is_public(const struct policy_flow *flow)
{
    if (flow->own)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(private_prefixes); i++)
        if (cidr_contains_ip(&private_prefixes[i], &flow->ip))
            return false;
    return true;
}

bool policy_rule_covers_service(const struct policy_rule *rule, const struct policy_flow *flow)
{
    uint8_t protocol = rule->protocol;

    if (protocol == IPPROTO_ICMP && flow->ip.family == AF_INET6)
        protocol = IPPROTO_ICMPV6;
    if (protocol && protocol != flow->protocol)
        return false;
    if (!rule->port)
        return true;
    return (flow->protocol == IPPROTO_TCP || flow->protocol == IPPROTO_UDP) &&
           flow->port >= rule->port && flow->port <= rule->port_end;
}

static bool matches_name(const struct policy_rule *rule, const struct policy_flow *flow)
{
    for (size_t i = 0; !flow->own && i < flow->n_names; i++)
        if (policy_rule_covers_name(rule, flow->names[i]))
            return true;
    return false;
}

bool policy_rule_covers_destination(const struct policy_rule *rule, const struct policy_flow *flow)
{
    switch (rule->destination) {
    case RULE_ANY:
        return true;
    case RULE_PUBLIC:
        return policy_flow_is_public(flow);
    case RULE_PRIVATE:
        return !policy_flow_is_public(flow);
    case RULE_PREFIX:
        return cidr_contains_ip(&rule->prefix, &flow->ip);
    case RULE_NAME:
    case RULE_BELOW:
    case RULE_BOTH:
        break;
    }
    return matches_name(rule, flow);
}

bool policy_rule_matches(const struct policy_rule *rule, const struct policy_flow *flow)
{
    return policy_rule_covers_service(rule, flow) && policy_rule_covers_destination(rule, flow);
}

static bool has_domain(const struct policy_rules *rules)
{
    for (size_t i = 0; i < rules->count; i++)
        if (policy_rule_is_domain(&rules->items[i]))
            return true;
    return false;
}

bool policy_has_domains(const struct policy_rules *allow, const struct policy_rules *deny)
{
    return has_domain(allow) || has_domain(deny);
}

bool policy_port_is_dns(uint8_t protocol, uint16_t port)
{
    return (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && (port == 53 || port == 853);
}

/* with_port: rules without a port don't count. */
static const struct policy_rule *find_match(const struct policy_rules *rules,
                                            const struct policy_flow *flow, bool with_port)
{
    for (size_t i = 0; i < rules->count; i++)
        if ((!with_port || rules->items[i].port) && policy_rule_matches(&rules->items[i], flow))
            return &rules->items[i];
    return NULL;
}

bool policy_allows(const struct policy_rules *allow, const struct policy_rules *deny,
                   const struct policy_flow *flow, const struct policy_rule **ret_rule)
{
    const struct policy_rule *denies = find_match(deny, flow, false);
    bool closed = policy_port_is_dns(flow->protocol, flow->port) && policy_has_domains(allow, deny);
    const struct policy_rule *allows = denies ? NULL : find_match(allow, flow, closed);

    if (ret_rule)
        *ret_rule = denies ? denies : allows;
    return !denies && (allows || (allow->count == 0 && !closed));
}

bool policy_allows_name(const struct policy_rules *allow, const struct policy_rules *deny,
                        const char *name, const struct policy_rule **ret_rule)
{
    const struct policy_rule *rule = NULL;
    bool allowed = !has_domain(allow);

    for (size_t i = 0; !rule && i < deny->count; i++)
        if (!deny->items[i].port && !deny->items[i].protocol &&
            policy_rule_covers_name(&deny->items[i], name))
            rule = &deny->items[i];
    if (rule)
        allowed = false;
    for (size_t i = 0; !rule && i < allow->count; i++) {
        if (!policy_rule_covers_name(&allow->items[i], name))
            continue;
        rule = &allow->items[i];
        allowed = true;
    }
    if (ret_rule)
        *ret_rule = rule;
    return allowed;
}
