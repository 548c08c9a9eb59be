/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one table of methods and fields. A new member of the API is a row here and a member of the
 * struct. */
#include "proto/proto.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define FIELD(type_, object_, member_, name_, ...)                              \
    {                                                                           \
        .name = (name_), .type = (type_), .offset = offsetof(object_, member_), \
        .size = sizeof(((object_ *)0)->member_), __VA_ARGS__                    \
    }
#define OBJECT(name_, struct_, fields_, deinit_)                       \
    {                                                                  \
        .name = (name_), .size = sizeof(struct_), .fields = (fields_), \
        .n_fields = ARRAY_SIZE(fields_), .deinit = (deinit_)           \
    }

/* --- results --- */

static const struct proto_field opening_fields[] = {
    FIELD(PROTO_NAME, struct opening, network, "network", .doc = "the other network"),
    FIELD(PROTO_STRINGS, struct opening, ports, "ports",
          .doc = "PORT[-END]/tcp or /udp; empty: everything"),
};
static void opening_free_fields(void *object)
{
    opening_deinit(object);
}
const struct proto_object proto_opening =
    OBJECT("Opening", struct opening, opening_fields, opening_free_fields);

#define N struct network
static const struct proto_field network_fields[] = {
    FIELD(PROTO_TEXT, N, uid, "id", .doc = "identifier, fixed for the network's life"),
    FIELD(PROTO_NAME, N, name, "name", .doc = "name"),
    FIELD(PROTO_IFNAME, N, bridge, "bridge", .doc = "the bridge's interface name on the host"),
    FIELD(PROTO_CIDR4, N, subnet, "subnet", .flags = PROTO_NULL, .doc = "IPv4 subnet"),
    FIELD(PROTO_IP4, N, gateway, "gateway", .flags = PROTO_NULL,
          .doc = "IPv4 address of the bridge"),
    FIELD(PROTO_CIDR4, N, ip_range, "ip_range", .flags = PROTO_NULL,
          .doc = "where automatic addresses come from; null: the whole subnet"),
    FIELD(PROTO_CIDR6, N, subnet6, "subnet6", .flags = PROTO_NULL, .doc = "IPv6 subnet"),
    FIELD(PROTO_IP6, N, gateway6, "gateway6", .flags = PROTO_NULL,
          .doc = "IPv6 address of the bridge"),
    FIELD(PROTO_BOOL, N, internal, "internal", .doc = "nothing goes in or out"),
    FIELD(PROTO_BOOL, N, isolated, "isolated", .doc = "guests do not reach one another"),
    FIELD(PROTO_BOOL, N, host_access, "host_access", .doc = "guests reach the host's services"),
    FIELD(PROTO_UINT32, N, mtu_now, "mtu", .doc = "MTU in bytes, as it is now"),
    FIELD(PROTO_BOOL, N, dns, "dns", .doc = "the name service answers on the gateway"),
    FIELD(PROTO_IPS, N, dns_servers, "dns_servers",
          .doc = "whom it asks for names that are not moat's; empty: the host's resolvers"),
    FIELD(PROTO_LABELS, N, labels, "labels", .doc = "labels"),
    FIELD(PROTO_TIME_S, N, created_s, "created", .doc = "when it was made, RFC 3339 UTC"),
    FIELD(PROTO_STRINGS, N, guests, "guests", .doc = "names of the guests on it"),
    {.name = "allowed_to",
     .type = PROTO_OBJECTS,
     .offset = offsetof(N, allowed_to),
     .count_offset = offsetof(N, n_allowed_to),
     .size = sizeof(struct opening),
     .object = &proto_opening,
     .flags = PROTO_OMIT,
     .doc = "what its guests may open connections to in other networks; left out when nothing"},
    {.name = "allowed_from",
     .type = PROTO_OBJECTS,
     .offset = offsetof(N, allowed_from),
     .count_offset = offsetof(N, n_allowed_from),
     .size = sizeof(struct opening),
     .object = &proto_opening,
     .flags = PROTO_OMIT,
     .doc = "what guests of other networks may open connections to in it; left out when nothing"},
};
#undef N

#define E struct endpoint
static const struct proto_field endpoint_fields[] = {
    FIELD(PROTO_NAME, E, network, "network", .doc = "network's name"),
    FIELD(PROTO_IFNAME, E, interface, "interface", .flags = PROTO_NULL,
          .doc = "interface inside the guest; null for a tap"),
    FIELD(PROTO_IFNAME, E, host_interface, "host_interface", .doc = "interface on the host"),
    FIELD(PROTO_IP4, E, ip, "ip", .flags = PROTO_NULL, .doc = "IPv4 address"),
    FIELD(PROTO_PREFIX, E, prefix, "prefix", .flags = PROTO_NULL, .doc = "IPv4 prefix length"),
    FIELD(PROTO_IP6, E, ip6, "ip6", .flags = PROTO_NULL, .doc = "IPv6 address"),
    FIELD(PROTO_PREFIX, E, prefix6, "prefix6", .flags = PROTO_NULL, .doc = "IPv6 prefix length"),
    FIELD(PROTO_IP, E, gateway, "gateway", .flags = PROTO_NULL,
          .doc = "the network's gateway address"),
    FIELD(PROTO_MAC, E, mac, "mac", .doc = "MAC address"),
    FIELD(PROTO_STRINGS, E, aliases, "aliases", .doc = "further names on this network"),
};
#undef E

#define P struct port
static const struct proto_field port_fields[] = {
    FIELD(PROTO_IP, P, host_ip, "host_ip", .flags = PROTO_NULL,
          .doc = "host address; 0.0.0.0, ::: every one of its family; null: every one"),
    FIELD(PROTO_UINT16, P, host_port, "host_port", .doc = "first port on the host"),
    FIELD(PROTO_UINT16, P, guest_port, "guest_port", .doc = "first port of the guest"),
    FIELD(PROTO_UINT16, P, count, "count", .doc = "length of the range"),
    FIELD(PROTO_PROTOCOL, P, protocol, "protocol", .doc = "tcp or udp"),
    FIELD(PROTO_TEXT, P, waiting, "waiting", .flags = PROTO_OMIT,
          .doc = "why nothing is led to the guest yet, such as a program that holds the port; left "
                 "out when it is served"),
};
#undef P

static const struct proto_field policy_fields[] = {
    FIELD(PROTO_STRINGS, struct policy, allow, "allow", .max = LIMIT_RULES, .doc = "RULEs"),
    FIELD(PROTO_STRINGS, struct policy, deny, "deny", .max = LIMIT_RULES, .doc = "RULEs"),
    FIELD(PROTO_BOOL, struct policy, log_denied, "log_denied", .doc = "events for what is denied"),
    FIELD(PROTO_BOOL, struct policy, silent, "drop", .flags = PROTO_OMIT,
          .doc = "what is denied is dropped in silence; left out when false"),
};

static void policy_free_fields(void *object)
{
    policy_deinit(object);
}

static void port_free_fields(void *object)
{
    (void)object; /* owns nothing */
}

static void endpoint_free_fields(void *object)
{
    endpoint_deinit(object);
}

static void network_free_fields(void *object)
{
    network_deinit(object);
}

static void guest_free_fields(void *object)
{
    guest_deinit(object);
}

const struct proto_object proto_network =
    OBJECT("Network", struct network, network_fields, network_free_fields);
const struct proto_object proto_endpoint =
    OBJECT("Endpoint", struct endpoint, endpoint_fields, endpoint_free_fields);
const struct proto_object proto_port = OBJECT("Port", struct port, port_fields, port_free_fields);
const struct proto_object proto_policy =
    OBJECT("Rules", struct policy, policy_fields, policy_free_fields);

#define I struct vmm_interface
static const struct proto_field vmm_interface_fields[] = {
    FIELD(PROTO_IFNAME, I, tap, "tap", .doc = "the tap"),
    FIELD(PROTO_MAC, I, mac, "mac", .doc = "MAC address that the guest must have"),
    FIELD(PROTO_CIDR4, I, address, "address", .flags = PROTO_NULL,
          .doc = "its IPv4 address with the prefix length"),
    FIELD(PROTO_IP4, I, gateway, "gateway", .flags = PROTO_NULL,
          .doc = "of the IPv4 default route; null where it leads elsewhere"),
    FIELD(PROTO_CIDR6, I, address6, "address6", .flags = PROTO_NULL,
          .doc = "its IPv6 address with the prefix length"),
    FIELD(PROTO_IP6, I, gateway6, "gateway6", .flags = PROTO_NULL,
          .doc = "of the IPv6 default route"),
    FIELD(PROTO_IPS, I, dns, "dns", .doc = "name servers"),
    FIELD(PROTO_UINT32, I, mtu, "mtu", .doc = "MTU in bytes"),
};
#undef I
static void vmm_interface_free_fields(void *object)
{
    ips_deinit(&((struct vmm_interface *)object)->dns);
}
static const struct proto_object proto_vmm_interface =
    OBJECT("VmmInterface", struct vmm_interface, vmm_interface_fields, vmm_interface_free_fields);

static const struct proto_field vmm_device_fields[] = {
    FIELD(PROTO_IFNAME, struct vmm_device, iface_id, "iface_id", .doc = "interface in the guest"),
    FIELD(PROTO_MAC, struct vmm_device, guest_mac, "guest_mac", .doc = "MAC address"),
    FIELD(PROTO_IFNAME, struct vmm_device, host_dev_name, "host_dev_name", .doc = "the tap"),
};
static const struct proto_object proto_vmm_device =
    OBJECT("VmmDevice", struct vmm_device, vmm_device_fields, port_free_fields);

#define V struct vmm
static const struct proto_field vmm_fields[] = {
    FIELD(PROTO_TEXT, V, kernel_ip, "kernel_ip", .flags = PROTO_NULL,
          .doc = "`ip=…`, an argument for a Linux kernel; null without IPv4"),
    {.name = "interfaces",
     .type = PROTO_OBJECTS,
     .offset = offsetof(V, interfaces),
     .count_offset = offsetof(V, n_interfaces),
     .size = sizeof(struct vmm_interface),
     .object = &proto_vmm_interface,
     .max = LIMIT_ENDPOINTS,
     .doc = "its taps, in order"},
    {.name = "network-interfaces",
     .type = PROTO_OBJECTS,
     .offset = offsetof(V, devices),
     .count_offset = offsetof(V, n_devices),
     .size = sizeof(struct vmm_device),
     .object = &proto_vmm_device,
     .max = LIMIT_ENDPOINTS,
     .doc = "the same as Firecracker's API and configuration file take them"},
};
#undef V
const struct proto_object proto_vmm = OBJECT("Vmm", struct vmm, vmm_fields, port_free_fields);

#define RATE_DOC "bits a second, 64000 to 1000000000000; 0: any"
static const struct proto_field limits_fields[] = {
    FIELD(PROTO_UINT64, struct limits, rate_up, "rate_up", .max = 1000000000000,
          .doc = "what it sends, " RATE_DOC),
    FIELD(PROTO_UINT64, struct limits, rate_down, "rate_down", .max = 1000000000000,
          .doc = "what it receives, " RATE_DOC),
    FIELD(PROTO_UINT32, struct limits, max_conns, "max_conns", .max = LIMIT_CONNS,
          .doc = "connections through the host at once; 0: a share of the host's table"),
    FIELD(PROTO_UINT32, struct limits, conn_rate, "conn_rate", .max = LIMIT_CONNS,
          .doc = "connections that it opens a second; 0: any"),
};
const struct proto_object proto_limits =
    OBJECT("Limits", struct limits, limits_fields, port_free_fields);

static const struct proto_field drops_fields[] = {
    FIELD(PROTO_UINT64, struct drops_result, frames, "frames",
          .doc = "that it may not send: not its MAC or address, or a router's or server's word"),
    FIELD(PROTO_UINT64, struct drops_result, connections, "connections",
          .doc = "attempts that were refused, by its rules or because they led out of bounds"),
};
const struct proto_object proto_drops =
    OBJECT("Drops", struct drops_result, drops_fields, port_free_fields);

#define G struct guest
static const struct proto_field guest_fields[] = {
    FIELD(PROTO_TEXT, G, uid, "id", .doc = "identifier, fixed for the guest's life"),
    FIELD(PROTO_NAME, G, name, "name", .doc = "name"),
    FIELD(PROTO_KIND, G, kind, "kind", .doc = "netns or tap"),
    FIELD(PROTO_MODE, G, mode, "mode", .doc = "disabled, loopback, outbound or full"),
    FIELD(PROTO_STATE, G, kind, "state", .doc = "running: a guest that ended is gone"),
    FIELD(PROTO_STRING, G, netns, "netns", .flags = PROTO_NULL,
          .doc = "path of its namespace; null when it leads there no more"),
    FIELD(PROTO_UINT64, G, netns_ino, "netns_inode", .flags = PROTO_NULL,
          .doc = "what tells its namespace from all others: the inode of /proc/PID/ns/net"),
    FIELD(PROTO_PID, G, pid, "pid", .flags = PROTO_NULL,
          .doc = "its process, as the host sees it; null when that has ended"),
    FIELD(PROTO_PID, G, owner_pid, "owner_pid", .flags = PROTO_OMIT,
          .doc = "for ephemeral guests only: the process that keeps it"),
    {.name = "endpoints",
     .type = PROTO_OBJECTS,
     .offset = offsetof(G, endpoints),
     .count_offset = offsetof(G, n_endpoints),
     .size = sizeof(struct endpoint),
     .object = &proto_endpoint,
     .max = LIMIT_ENDPOINTS,
     .doc = "its interfaces, in order"},
    {.name = "ports",
     .type = PROTO_OBJECTS,
     .offset = offsetof(G, ports),
     .count_offset = offsetof(G, n_ports),
     .size = sizeof(struct port),
     .object = &proto_port,
     .max = LIMIT_PORTS_PER_GUEST,
     .doc = "its published ports; a range is one entry"},
    FIELD(PROTO_OBJECT, G, policy, "policy", .object = &proto_policy, .doc = "its rules"),
    FIELD(PROTO_BOOL, G, localhost, "localhost", .flags = PROTO_OMIT,
          .doc = "its 127.0.0.1 reaches the gateway; left out when not"),
    FIELD(PROTO_IPS, G, dns, "dns", .flags = PROTO_OMIT,
          .doc = "name servers that were asked for; left out when none"),
    FIELD(PROTO_STRINGS, G, dns_search, "dns_search", .flags = PROTO_OMIT,
          .doc = "domains to search that were asked for; left out when none"),
    FIELD(PROTO_STRINGS, G, hosts, "hosts", .flags = PROTO_OMIT,
          .doc = "lines of /etc/hosts that were asked for, NAME:IP; left out when none"),
    FIELD(PROTO_LABELS, G, labels, "labels", .doc = "labels"),
    FIELD(PROTO_TIME_S, G, created_s, "created", .doc = "when it was attached, RFC 3339 UTC"),
    FIELD(PROTO_OBJECT, G, vmm, "vmm", .flags = PROTO_HAS | PROTO_OMIT,
          .has_offset = offsetof(G, has_vmm), .object = &proto_vmm,
          .doc = "for guests of kind tap only: what a VMM needs"),
    FIELD(PROTO_OBJECT, G, drops, "drops", .flags = PROTO_HAS | PROTO_OMIT,
          .has_offset = offsetof(G, has_drops), .object = &proto_drops,
          .doc = "what was dropped of it so far; left out when nothing was"),
};
#undef G
const struct proto_object proto_guest =
    OBJECT("Guest", struct guest, guest_fields, guest_free_fields);

static const struct proto_field policy_result_fields[] = {
    FIELD(PROTO_MODE, struct policy_result, mode, "mode", .doc = "the guest's mode"),
    FIELD(PROTO_STRINGS, struct policy_result, policy.allow, "allow", .max = LIMIT_RULES,
          .doc = "RULEs; any makes everything else denied"),
    FIELD(PROTO_STRINGS, struct policy_result, policy.deny, "deny", .max = LIMIT_RULES,
          .doc = "RULEs; deny wins"),
    FIELD(PROTO_BOOL, struct policy_result, policy.log_denied, "log_denied",
          .doc = "events for what is denied"),
    FIELD(PROTO_BOOL, struct policy_result, policy.silent, "drop", .flags = PROTO_OMIT,
          .doc = "what is denied is dropped in silence; left out when false"),
};
static void policy_result_free_fields(void *object)
{
    policy_deinit(&((struct policy_result *)object)->policy);
}
const struct proto_object proto_policy_result =
    OBJECT("Policy", struct policy_result, policy_result_fields, policy_result_free_fields);

#define T struct policy_test_result
static const struct proto_field policy_test_result_fields[] = {
    FIELD(PROTO_BOOL, T, allowed, "allowed", .doc = "whether the connection could be opened"),
    FIELD(PROTO_TEXT, T, list, "list", .flags = PROTO_NULL,
          .doc = "allow or deny: where the rule that decided stands; null: no rule did"),
    FIELD(PROTO_TEXT, T, rule, "rule", .flags = PROTO_NULL, .doc = "that RULE"),
    FIELD(PROTO_TEXT, T, reason, "reason", .doc = "why, for people"),
};
#undef T
const struct proto_object proto_policy_test_result =
    OBJECT("Verdict", struct policy_test_result, policy_test_result_fields, port_free_fields);

#define L struct learn_result
static const struct proto_field learn_result_fields[] = {
    FIELD(PROTO_UINT64, L, seconds, "seconds", .doc = "how long so far"),
    FIELD(PROTO_UINT64, L, connections, "connections",
          .doc = "different connections: destination, protocol, port"),
    FIELD(PROTO_BOOL, L, complete, "complete", .doc = "false: some were missed"),
    FIELD(PROTO_STRINGS, L, rules, "rules", .doc = "RULEs that allow them and nothing else"),
};
#undef L
static void learn_result_free_fields(void *object)
{
    strings_deinit(&((struct learn_result *)object)->rules);
}
const struct proto_object proto_learn_result =
    OBJECT("Learned", struct learn_result, learn_result_fields, learn_result_free_fields);

static const struct proto_field record_fields[] = {
    FIELD(PROTO_TEXT, struct record_result, name, "name", .doc = "name, without the domain"),
    FIELD(PROTO_TEXT, struct record_result, network, "network", .flags = PROTO_NULL,
          .doc = "network; null: every one"),
    FIELD(PROTO_RECORD, struct record_result, type, "type", .doc = "A, AAAA, CNAME, TXT or SRV"),
    FIELD(PROTO_STRING, struct record_result, value, "value",
          .doc = "an address; a name; a text; \"PRIORITY WEIGHT PORT TARGET\""),
    FIELD(PROTO_IP, struct record_result, ip, "ip", .flags = PROTO_NULL,
          .doc = "the address, of A and AAAA"),
    FIELD(PROTO_TEXT, struct record_result, guest, "guest", .flags = PROTO_NULL,
          .doc = "whose name it is; null: added by `dns.add`"),
};
static void record_free_fields(void *object)
{
    free(((struct record_result *)object)->value);
}
const struct proto_object proto_record =
    OBJECT("Record", struct record_result, record_fields, record_free_fields);

#define Q struct dns_query_result
static const struct proto_field dns_query_fields[] = {
    FIELD(PROTO_UINT64, Q, number, "number", .doc = "counts up; what is missing was lost"),
    FIELD(PROTO_TIME_MS, Q, time_ms, "time", .doc = "of the answer, RFC 3339 UTC"),
    FIELD(PROTO_TEXT, Q, guest, "guest", .flags = PROTO_NULL, .doc = "who asked; null: the host"),
    FIELD(PROTO_TEXT, Q, network, "network", .doc = "whose gateway was asked"),
    FIELD(PROTO_STRING, Q, name, "name", .doc = "name as asked"),
    FIELD(PROTO_TEXT, Q, type, "type", .doc = "type asked for"),
    FIELD(PROTO_TEXT, Q, rcode, "rcode", .doc = "NOERROR, NXDOMAIN, …"),
    FIELD(PROTO_TEXT, Q, source, "source", .doc = "local, cache or upstream"),
    FIELD(PROTO_UINT32, Q, duration_us, "duration_us", .doc = "microseconds until the answer"),
};
#undef Q
static void dns_query_free_fields(void *object)
{
    free(((struct dns_query_result *)object)->name);
}
static const struct proto_object proto_dns_query =
    OBJECT("Query", struct dns_query_result, dns_query_fields, dns_query_free_fields);

#define L struct dns_log_result
static const struct proto_field dns_log_result_fields[] = {
    FIELD(PROTO_BOOL, L, began, "began", .doc = "nothing was kept before this call"),
    FIELD(PROTO_UINT64, L, next, "next", .doc = "`since` for what comes after this"),
    FIELD(PROTO_UINT64, L, lost, "lost", .doc = "how many are missing since `since`"),
    {.name = "queries",
     .type = PROTO_OBJECTS,
     .offset = offsetof(L, queries),
     .count_offset = offsetof(L, n_queries),
     .size = sizeof(struct dns_query_result),
     .object = &proto_dns_query,
     .max = LIMIT_DNS_LOG,
     .doc = "the oldest first"},
};
#undef L
static void dns_log_free_fields(void *object)
{
    dns_log_result_deinit(object);
}
const struct proto_object proto_dns_log =
    OBJECT("QueryLog", struct dns_log_result, dns_log_result_fields, dns_log_free_fields);

#define D struct dns_counters
static const struct proto_field dns_counters_fields[] = {
    FIELD(PROTO_UINT64, D, queries, "queries", .doc = "queries that came"),
    FIELD(PROTO_UINT64, D, local, "local", .doc = "answered from our own names"),
    FIELD(PROTO_UINT64, D, cached, "cached", .doc = "answered from the cache"),
    FIELD(PROTO_UINT64, D, missed, "missed", .doc = "not in the cache"),
    FIELD(PROTO_UINT64, D, forwarded, "forwarded",
          .doc = "questions asked of upstream servers; who asks the same meanwhile shares one"),
    FIELD(PROTO_UINT64, D, failed, "failed", .doc = "of these, without a good answer"),
    FIELD(PROTO_UINT64, D, stale, "stale", .doc = "of these, answered by what had expired"),
    FIELD(PROTO_UINT64, D, refused, "refused", .doc = "refused, or not answered at all"),
    FIELD(PROTO_UINT64, D, shed, "shed", .doc = "given up beyond their guest's bounds"),
    FIELD(PROTO_UINT64, D, cache_entries, "cache_entries", .doc = "answers in the cache"),
    FIELD(PROTO_UINT64, D, cache_bytes, "cache_bytes", .doc = "what they take"),
};
#undef D
static const struct proto_object proto_dns_counters =
    OBJECT("DnsCounters", struct dns_counters, dns_counters_fields, port_free_fields);

#define S struct status_result
static const struct proto_field status_fields[] = {
    FIELD(PROTO_TEXT, S, version, "version", .doc = "moatd's version"),
    FIELD(PROTO_UINT64, S, uptime_seconds, "uptime_seconds", .doc = "since moatd started"),
    FIELD(PROTO_UINT64, S, networks, "networks", .doc = "number of networks"),
    FIELD(PROTO_UINT64, S, guests, "guests", .doc = "number of guests"),
    FIELD(PROTO_UINT64, S, ports, "ports", .doc = "number of published entries"),
    FIELD(PROTO_UINT32, S, pid, "pid", .doc = "moatd's process"),
    FIELD(PROTO_BOOL, S, table_owned, "table_owned",
          .doc = "the nftables table is owned: a foreign `flush ruleset` passes it by"),
    FIELD(PROTO_TEXT, S, domain, "domain", .doc = "domain of the name service"),
    FIELD(PROTO_IPS, S, upstreams, "upstreams", .doc = "where other names are asked"),
    FIELD(PROTO_STRINGS, S, forward, "forward",
          .doc = "SUFFIX=IP: where names below a suffix are asked instead"),
    FIELD(PROTO_OBJECT, S, dns, "dns", .object = &proto_dns_counters,
          .doc = "what the name service has done since its worker started, a second ago"),
    FIELD(PROTO_UINT32, S, dns_pid, "dns_pid", .flags = PROTO_NULL,
          .doc = "the name service's worker"),
    FIELD(PROTO_UINT32, S, relay_pid, "relay_pid", .flags = PROTO_NULL, .doc = "the relay worker"),
    FIELD(PROTO_UINT32, S, dhcp_pid, "dhcp_pid", .flags = PROTO_NULL, .doc = "the DHCP worker"),
};
#undef S
static void status_free_fields(void *object)
{
    struct status_result *status = object;

    ips_deinit(&status->upstreams);
    strings_deinit(&status->forward);
}
const struct proto_object proto_status =
    OBJECT("Status", struct status_result, status_fields, status_free_fields);

static const struct proto_field check_fields[] = {
    FIELD(PROTO_TEXT, struct check_result, name, "name", .doc = "what was looked at"),
    FIELD(PROTO_BOOL, struct check_result, ok, "ok", .doc = "whether it is as it should be"),
    FIELD(PROTO_TEXT, struct check_result, detail, "detail", .doc = "what was found"),
    FIELD(PROTO_TEXT, struct check_result, remedy, "remedy", .flags = PROTO_NULL,
          .doc = "what to do; null when ok"),
};
const struct proto_object proto_check =
    OBJECT("Check", struct check_result, check_fields, port_free_fields);

static const struct proto_field denial_fields[] = {
    FIELD(PROTO_TEXT, struct denial, protocol, "protocol", .doc = "tcp, udp, icmp, or a number"),
    FIELD(PROTO_IP, struct denial, ip, "ip", .doc = "address that the guest called"),
    FIELD(PROTO_UINT16, struct denial, port, "port", .doc = "port; 0 where there is none"),
    FIELD(PROTO_TEXT, struct denial, name, "name", .flags = PROTO_NULL,
          .doc = "name that it had looked up to get there, where that is known"),
    FIELD(PROTO_TEXT, struct denial, rule, "rule", .flags = PROTO_NULL,
          .doc = "rule that denies it; null: no rule allows it, or its network ends there"),
    FIELD(PROTO_UINT64, struct denial, count, "count", .doc = "attempts, since the last event"),
};
const struct proto_object proto_denial =
    OBJECT("Denial", struct denial, denial_fields, port_free_fields);

static const struct proto_field event_fields[] = {
    FIELD(PROTO_TIME_MS, struct event, time_ms, "time", .doc = "RFC 3339 UTC, with milliseconds"),
    FIELD(PROTO_TEXT, struct event, type, "type", .doc = "what happened"),
    FIELD(PROTO_TEXT, struct event, network, "network", .flags = PROTO_NULL, .doc = "network"),
    FIELD(PROTO_TEXT, struct event, guest, "guest", .flags = PROTO_NULL, .doc = "guest"),
    FIELD(PROTO_TEXT, struct event, detail, "detail", .flags = PROTO_NULL,
          .doc = "more, for people"),
    FIELD(PROTO_OBJECT, struct event, denied, "denied", .flags = PROTO_HAS | PROTO_OMIT,
          .has_offset = offsetof(struct event, has_denied), .object = &proto_denial,
          .doc = "of `connection.denied` only: what was denied"),
};
const struct proto_object proto_event =
    OBJECT("Event", struct event, event_fields, port_free_fields);

/* --- params --- */

#define C struct network_create_params
static const struct proto_field network_create_fields[] = {
    FIELD(PROTO_NAME, C, name, "name", .flags = PROTO_REQUIRED, .doc = "name"),
    FIELD(PROTO_CIDR4, C, subnet, "subnet", .doc = "IPv4 subnet, /8 to /30; chosen when absent"),
    FIELD(PROTO_IP4, C, gateway, "gateway", .doc = "the bridge's address; the first of the subnet"),
    FIELD(PROTO_CIDR4, C, ip_range, "ip_range",
          .doc = "part of the subnet for automatic addresses"),
    FIELD(PROTO_BOOL, C, ipv4, "ipv4", .fallback = true,
          .doc = "false: IPv6 only; needs ipv6 or subnet6"),
    FIELD(PROTO_BOOL, C, ipv6, "ipv6", .doc = "IPv6 as well"),
    FIELD(PROTO_CIDR6, C, subnet6, "subnet6", .doc = "IPv6 subnet"),
    FIELD(PROTO_IP6, C, gateway6, "gateway6", .doc = "the bridge's IPv6 address"),
    FIELD(PROTO_BOOL, C, internal, "internal", .doc = "nothing goes in or out"),
    FIELD(PROTO_BOOL, C, isolated, "isolated", .doc = "guests do not reach one another"),
    FIELD(PROTO_BOOL, C, host_access, "host_access", .doc = "guests reach the host's services"),
    FIELD(PROTO_UINT32, C, mtu, "mtu", .min = 576, .max = 65535,
          .doc = "MTU; follows the host's default route when absent"),
    FIELD(PROTO_IFNAME, C, bridge, "bridge", .doc = "interface name of the bridge"),
    FIELD(PROTO_BOOL, C, dns, "dns", .fallback = true, .doc = "false: no name service"),
    FIELD(PROTO_IPS, C, dns_servers, "dns_servers", .max = LIMIT_DNS_SERVERS,
          .doc = "upstream servers instead of the host's"),
    FIELD(PROTO_LABELS, C, labels, "labels", .max = LIMIT_LABELS, .doc = "labels"),
    FIELD(PROTO_BOOL, C, ignore, "ignore", .doc = "content if it exists with these settings"),
};
#undef C

static const struct proto_field name_fields[] = {
    FIELD(PROTO_NAME, struct name_params, name, "name", .flags = PROTO_REQUIRED, .doc = "name"),
};
static const struct proto_field network_remove_fields[] = {
    FIELD(PROTO_NAME, struct network_remove_params, name, "name", .flags = PROTO_REQUIRED,
          .doc = "name"),
    FIELD(PROTO_BOOL, struct network_remove_params, force, "force", .doc = "detach its guests too"),
};

#define PASSAGE_FIELDS                                                                            \
    FIELD(PROTO_NAME, struct passage_params, from, "from", .flags = PROTO_REQUIRED,               \
          .doc = "network whose guests open connections"),                                        \
        FIELD(PROTO_NAME, struct passage_params, to, "to", .flags = PROTO_REQUIRED,               \
              .doc = "network whose guests are reached"),                                         \
        FIELD(PROTO_STRINGS, struct passage_params, ports, "ports", .max = LIMIT_PORTS_PER_GUEST, \
              .doc = "PORT[-END][/tcp|/udp] of the guests there; everything when absent")
static const struct proto_field network_allow_fields[] = {PASSAGE_FIELDS};
static const struct proto_field network_deny_fields[] = {
    PASSAGE_FIELDS,
    FIELD(PROTO_BOOL, struct passage_params, cut, "cut",
          .doc = "end connections that run and are no longer allowed"),
};

static const struct proto_field attach_network_fields[] = {
    FIELD(PROTO_NAME, struct attach_network, name, "name", .flags = PROTO_REQUIRED,
          .doc = "network's name"),
    FIELD(PROTO_IP4, struct attach_network, ip, "ip", .doc = "IPv4 address; chosen when absent"),
    FIELD(PROTO_IP6, struct attach_network, ip6, "ip6", .doc = "IPv6 address"),
    FIELD(PROTO_MAC, struct attach_network, mac, "mac", .doc = "MAC address"),
    FIELD(PROTO_STRINGS, struct attach_network, aliases, "aliases", .max = LIMIT_ALIASES,
          .doc = "further names on this network"),
};
static void attach_network_free_fields(void *object)
{
    strings_deinit(&((struct attach_network *)object)->aliases);
}
static const struct proto_object proto_attach_network = OBJECT(
    "AttachNetwork", struct attach_network, attach_network_fields, attach_network_free_fields);

static const struct proto_field attach_tap_fields[] = {
    FIELD(PROTO_IFNAME, struct attach_tap, name, "name",
          .doc = "interface name; mt<N> when absent"),
    FIELD(PROTO_ID, struct attach_tap, owner, "owner",
          .doc = "uid that may open it; yours when neither owner nor group is given"),
    FIELD(PROTO_ID, struct attach_tap, group, "group", .doc = "gid that may open it"),
    FIELD(PROTO_BOOL, struct attach_tap, multi_queue, "multi_queue", .doc = "several queues"),
    FIELD(PROTO_BOOL, struct attach_tap, vnet_hdr, "vnet_hdr", .doc = "virtio-net header"),
    FIELD(
        PROTO_BOOL, struct attach_tap, fd, "fd",
        .doc =
            "send the open taps back by SCM_RIGHTS, one for each network, in order; the one member "
            "that goes without kind too"),
};
static const struct proto_object proto_attach_tap =
    OBJECT("Tap", struct attach_tap, attach_tap_fields, port_free_fields);

#define A struct guest_attach_params
static const struct proto_field guest_attach_fields[] = {
    FIELD(PROTO_NAME, A, name, "name", .flags = PROTO_REQUIRED, .doc = "the guest's name"),
    {.name = "networks",
     .type = PROTO_OBJECTS,
     .offset = offsetof(A, networks),
     .count_offset = offsetof(A, n_networks),
     .size = sizeof(struct attach_network),
     .object = &proto_attach_network,
     .max = LIMIT_ENDPOINTS,
     .doc = "its networks, in order; `default` when absent"},
    FIELD(PROTO_KIND, A, kind, "kind", .flags = PROTO_HAS, .has_offset = offsetof(A, has_kind),
          .doc = "netns or tap; absent: one more network for a guest that is there"),
    FIELD(PROTO_STRING, A, netns, "netns", .max = 4095, .doc = "path of its network namespace"),
    FIELD(PROTO_UINT32, A, pid, "pid", .min = 1, .max = 4194304,
          .doc = "a process in the namespace"),
    FIELD(PROTO_BOOL, A, netns_fd, "netns_fd", .doc = "the namespace comes by SCM_RIGHTS"),
    FIELD(PROTO_OBJECT, A, tap, "tap", .object = &proto_attach_tap, .flags = PROTO_HAS,
          .has_offset = offsetof(A, tap.given), .doc = "settings of a tap"),
    FIELD(PROTO_MODE, A, mode, "mode", .flags = PROTO_HAS, .has_offset = offsetof(A, has_mode),
          .doc = "disabled, loopback, outbound or full (default)"),
    FIELD(PROTO_STRINGS, A, ports, "ports", .max = LIMIT_PORTS_PER_GUEST,
          .doc = "PORTs to publish"),
    FIELD(PROTO_OBJECT, A, policy, "policy", .object = &proto_policy, .doc = "its rules"),
    FIELD(PROTO_OBJECT, A, limits, "limits", .object = &proto_limits,
          .doc = "what each of its interfaces is limited to"),
    FIELD(PROTO_STRINGS, A, hosts, "hosts", .max = LIMIT_HOSTS,
          .doc = "NAME:IP, for its hosts file"),
    FIELD(PROTO_IPS, A, dns, "dns", .max = LIMIT_DNS_SERVERS,
          .doc = "upstream servers for this guest"),
    FIELD(PROTO_STRINGS, A, dns_search, "dns_search", .max = LIMIT_DNS_SEARCH,
          .doc = "search domains"),
    FIELD(PROTO_LABELS, A, labels, "labels", .max = LIMIT_LABELS, .doc = "labels"),
    FIELD(PROTO_BOOL, A, ephemeral, "ephemeral", .doc = "gone when this connection closes"),
    FIELD(PROTO_BOOL, A, dns_inject, "dns_inject",
          .doc = "its networks' name servers come first in its /etc/resolv.conf; needs pid"),
};
#undef A

static const struct proto_field guest_detach_fields[] = {
    FIELD(PROTO_NAME, struct guest_detach_params, name, "name", .flags = PROTO_REQUIRED,
          .doc = "the guest's name"),
    FIELD(PROTO_NAME, struct guest_detach_params, network, "network",
          .doc = "only from this network"),
};
static const struct proto_field port_params_fields[] = {
    FIELD(PROTO_NAME, struct port_params, guest, "guest", .flags = PROTO_REQUIRED,
          .doc = "the guest's name"),
    FIELD(PROTO_STRINGS, struct port_params, ports, "ports", .flags = PROTO_REQUIRED, .min = 1,
          .max = LIMIT_PORTS_PER_GUEST, .doc = "PORTs"),
};
static const struct proto_field guest_optional_fields[] = {
    FIELD(PROTO_NAME, struct guest_params, guest, "guest", .doc = "only this guest's"),
};
static const struct proto_field guest_required_fields[] = {
    FIELD(PROTO_NAME, struct guest_params, guest, "guest", .flags = PROTO_REQUIRED,
          .doc = "the guest's name"),
};
static const struct proto_field policy_set_fields[] = {
    FIELD(PROTO_NAME, struct policy_set_params, guest, "guest", .flags = PROTO_REQUIRED,
          .doc = "the guest's name"),
    FIELD(PROTO_MODE, struct policy_set_params, mode, "mode", .flags = PROTO_HAS,
          .has_offset = offsetof(struct policy_set_params, has_mode),
          .doc = "new mode; as it is when absent"),
    FIELD(PROTO_STRINGS, struct policy_set_params, policy.allow, "allow", .max = LIMIT_RULES,
          .doc = "RULEs, replacing those there are"),
    FIELD(PROTO_STRINGS, struct policy_set_params, policy.deny, "deny", .max = LIMIT_RULES,
          .doc = "RULEs, replacing those there are"),
    FIELD(PROTO_BOOL, struct policy_set_params, policy.log_denied, "log_denied",
          .doc = "events for what is denied"),
    FIELD(PROTO_BOOL, struct policy_set_params, policy.silent, "drop",
          .doc = "drop what is denied in silence, instead of refusing it"),
    FIELD(PROTO_BOOL, struct policy_set_params, cut, "cut",
          .doc = "end connections that run and are no longer allowed"),
};
static const struct proto_field policy_test_fields[] = {
    FIELD(PROTO_NAME, struct policy_test_params, guest, "guest", .flags = PROTO_REQUIRED,
          .doc = "the guest's name"),
    FIELD(PROTO_STRING, struct policy_test_params, destination, "destination",
          .flags = PROTO_REQUIRED, .max = RULE_TEXT_MAX,
          .doc = "ADDRESS:PORT or NAME:PORT, with /tcp (default) or /udp; or ADDRESS/icmp"),
};
#define L struct limit_set_params
static const struct proto_field limit_set_fields[] = {
    FIELD(PROTO_NAME, L, guest, "guest", .flags = PROTO_REQUIRED, .doc = "the guest's name"),
    FIELD(PROTO_UINT64, L, limits.rate_up, "rate_up", .flags = PROTO_HAS,
          .has_offset = offsetof(L, has_rate_up), .max = 1000000000000,
          .doc = "what it sends, " RATE_DOC "; as it is when absent"),
    FIELD(PROTO_UINT64, L, limits.rate_down, "rate_down", .flags = PROTO_HAS,
          .has_offset = offsetof(L, has_rate_down), .max = 1000000000000,
          .doc = "what it receives, " RATE_DOC "; as it is when absent"),
    FIELD(PROTO_UINT32, L, limits.max_conns, "max_conns", .flags = PROTO_HAS,
          .has_offset = offsetof(L, has_max_conns), .max = LIMIT_CONNS,
          .doc = "connections through the host at once; 0: a share of the host's table"),
    FIELD(PROTO_UINT32, L, limits.conn_rate, "conn_rate", .flags = PROTO_HAS,
          .has_offset = offsetof(L, has_conn_rate), .max = LIMIT_CONNS,
          .doc = "connections that it opens a second; 0: any"),
};
#undef L
static const struct proto_field learn_fields[] = {
    FIELD(PROTO_NAME, struct learn_params, guest, "guest", .flags = PROTO_REQUIRED,
          .doc = "the guest's name"),
    FIELD(PROTO_BOOL, struct learn_params, enabled, "enabled", .flags = PROTO_REQUIRED,
          .doc = "begin or end; it ends with this connection too"),
};
static const struct proto_field localhost_fields[] = {
    FIELD(PROTO_NAME, struct localhost_params, guest, "guest", .flags = PROTO_REQUIRED,
          .doc = "the guest's name"),
    FIELD(PROTO_BOOL, struct localhost_params, enabled, "enabled", .flags = PROTO_REQUIRED,
          .doc = "on or off"),
};
static const struct proto_field dns_list_fields[] = {
    FIELD(PROTO_NAME, struct dns_params, network, "network", .doc = "only this network's"),
};
static const struct proto_field dns_add_fields[] = {
    FIELD(PROTO_NAME, struct dns_params, network, "network", .doc = "only on this network"),
    FIELD(PROTO_DNSNAME, struct dns_params, name, "name", .flags = PROTO_REQUIRED,
          .doc = "name, below the domain; `*.NAME` is every name below NAME that is not there"),
    FIELD(PROTO_IP, struct dns_params, ip, "ip", .doc = "address; instead of values"),
    FIELD(PROTO_RECORD, struct dns_params, type, "type",
          .doc = "A, AAAA, CNAME, TXT or SRV; absent: the values are addresses"),
    FIELD(PROTO_STRINGS, struct dns_params, values, "values", .max = LIMIT_DNS_VALUES,
          .doc = "a record for each; of SRV \"PRIORITY WEIGHT PORT TARGET\""),
};
static const struct proto_field dns_remove_fields[] = {
    FIELD(PROTO_NAME, struct dns_params, network, "network", .doc = "only on this network"),
    FIELD(PROTO_DNSNAME, struct dns_params, name, "name", .flags = PROTO_REQUIRED, .doc = "name"),
    FIELD(PROTO_IP, struct dns_params, ip, "ip", .doc = "only this address"),
    FIELD(PROTO_RECORD, struct dns_params, type, "type", .doc = "only records of this type"),
    FIELD(PROTO_STRINGS, struct dns_params, values, "values", .max = LIMIT_DNS_VALUES,
          .doc = "only these values"),
};

static const struct proto_field dns_flush_fields[] = {
    FIELD(PROTO_DNSNAME, struct dns_flush_params, name, "name",
          .doc = "only this name and those below it"),
};

static const struct proto_field dns_log_fields[] = {
    FIELD(PROTO_UINT64, struct dns_log_params, since, "since",
          .doc = "number from which on; 0: all there is (default 0)"),
};

static void network_create_free_fields(void *object)
{
    struct network_create_params *params = object;

    ips_deinit(&params->dns_servers);
    labels_deinit(&params->labels);
}

static void guest_attach_free_fields(void *object)
{
    struct guest_attach_params *params = object;

    for (size_t i = 0; i < params->n_networks; i++)
        attach_network_free_fields(&params->networks[i]);
    free(params->networks);
    free(params->netns);
    strings_deinit(&params->ports);
    policy_deinit(&params->policy);
    strings_deinit(&params->hosts);
    ips_deinit(&params->dns);
    strings_deinit(&params->dns_search);
    labels_deinit(&params->labels);
}

static void passage_free_fields(void *object)
{
    strings_deinit(&((struct passage_params *)object)->ports);
}

static void port_params_free_fields(void *object)
{
    strings_deinit(&((struct port_params *)object)->ports);
}

static void policy_set_free_fields(void *object)
{
    policy_deinit(&((struct policy_set_params *)object)->policy);
}

static void dns_params_free_fields(void *object)
{
    strings_deinit(&((struct dns_params *)object)->values);
}

static void policy_test_free_fields(void *object)
{
    free(((struct policy_test_params *)object)->destination);
}

static const struct proto_object no_params = {.name = "", .size = sizeof(struct empty_params)};
static const struct proto_object network_create_params =
    OBJECT("", struct network_create_params, network_create_fields, network_create_free_fields);
static const struct proto_object name_params = OBJECT("", struct name_params, name_fields, NULL);
static const struct proto_object network_remove_params =
    OBJECT("", struct network_remove_params, network_remove_fields, NULL);
static const struct proto_object network_allow_params =
    OBJECT("", struct passage_params, network_allow_fields, passage_free_fields);
static const struct proto_object network_deny_params =
    OBJECT("", struct passage_params, network_deny_fields, passage_free_fields);
static const struct proto_object guest_attach_params =
    OBJECT("", struct guest_attach_params, guest_attach_fields, guest_attach_free_fields);
static const struct proto_object guest_detach_params =
    OBJECT("", struct guest_detach_params, guest_detach_fields, NULL);
static const struct proto_object port_params =
    OBJECT("", struct port_params, port_params_fields, port_params_free_fields);
static const struct proto_object guest_optional_params =
    OBJECT("", struct guest_params, guest_optional_fields, NULL);
static const struct proto_object guest_required_params =
    OBJECT("", struct guest_params, guest_required_fields, NULL);
static const struct proto_object policy_set_params =
    OBJECT("", struct policy_set_params, policy_set_fields, policy_set_free_fields);
static const struct proto_object policy_test_params =
    OBJECT("", struct policy_test_params, policy_test_fields, policy_test_free_fields);
static const struct proto_object limit_set_params =
    OBJECT("", struct limit_set_params, limit_set_fields, NULL);
static const struct proto_object learn_params = OBJECT("", struct learn_params, learn_fields, NULL);
static const struct proto_object localhost_params =
    OBJECT("", struct localhost_params, localhost_fields, NULL);
static const struct proto_object dns_list_params =
    OBJECT("", struct dns_params, dns_list_fields, NULL);
static const struct proto_object dns_add_params =
    OBJECT("", struct dns_params, dns_add_fields, dns_params_free_fields);
static const struct proto_object dns_remove_params =
    OBJECT("", struct dns_params, dns_remove_fields, dns_params_free_fields);

static const struct proto_object dns_log_params =
    OBJECT("", struct dns_log_params, dns_log_fields, NULL);
static const struct proto_object dns_flush_params =
    OBJECT("", struct dns_flush_params, dns_flush_fields, NULL);

#define METHOD(id_, name_, params_, kind_, result_, doc_) \
    [id_] = {.id = (id_),                                 \
             .name = (name_),                             \
             .params = (params_),                         \
             .result_kind = (kind_),                      \
             .result = (result_),                         \
             .doc = (doc_)}

static const struct proto_method methods[] = {
    METHOD(METHOD_NETWORK_CREATE, "network.create", &network_create_params, RESULT_OBJECT,
           &proto_network, "Makes a network: bridge, addresses, NAT and name service."),
    METHOD(METHOD_NETWORK_LIST, "network.list", &no_params, RESULT_LIST, &proto_network,
           "All networks."),
    METHOD(METHOD_NETWORK_GET, "network.get", &name_params, RESULT_OBJECT, &proto_network,
           "One network."),
    METHOD(METHOD_NETWORK_REMOVE, "network.remove", &network_remove_params, RESULT_EMPTY, NULL,
           "Removes a network; refused (in_use) while guests are on it, unless forced."),
    METHOD(METHOD_NETWORK_PRUNE, "network.prune", &no_params, RESULT_STRINGS, NULL,
           "Removes every network without guests but the default one."),
    METHOD(METHOD_NETWORK_ALLOW, "network.allow", &network_allow_params, RESULT_EMPTY, NULL,
           "Lets guests of one network open connections to those of another, one way."),
    METHOD(METHOD_NETWORK_DENY, "network.deny", &network_deny_params, RESULT_EMPTY, NULL,
           "Takes back what `network.allow` opened."),
    METHOD(METHOD_GUEST_ATTACH, "guest.attach", &guest_attach_params, RESULT_OBJECT, &proto_guest,
           "Attaches a guest, or one more network to a guest that is there."),
    METHOD(METHOD_GUEST_DETACH, "guest.detach", &guest_detach_params, RESULT_EMPTY, NULL,
           "Detaches a guest from one network, or from all."),
    METHOD(METHOD_GUEST_LIST, "guest.list", &no_params, RESULT_LIST, &proto_guest, "All guests."),
    METHOD(METHOD_GUEST_GET, "guest.get", &name_params, RESULT_OBJECT, &proto_guest, "One guest."),
    METHOD(METHOD_PORT_ADD, "port.add", &port_params, RESULT_LIST, &proto_port,
           "Publishes ports of a guest; answers with the entries that were added."),
    METHOD(METHOD_PORT_REMOVE, "port.remove", &port_params, RESULT_EMPTY, NULL,
           "Takes published ports back."),
    METHOD(METHOD_PORT_LIST, "port.list", &guest_optional_params, RESULT_LIST, &proto_port,
           "Published ports, of one guest or of all."),
    METHOD(METHOD_POLICY_GET, "policy.get", &guest_required_params, RESULT_OBJECT,
           &proto_policy_result, "A guest's mode and rules."),
    METHOD(METHOD_POLICY_SET, "policy.set", &policy_set_params, RESULT_OBJECT, &proto_policy_result,
           "Replaces a guest's rules, and its mode when given."),
    METHOD(METHOD_POLICY_TEST, "policy.test", &policy_test_params, RESULT_OBJECT,
           &proto_policy_test_result,
           "Whether a guest could open a connection, and by which rule; sends nothing."),
    METHOD(METHOD_LIMIT_GET, "limit.get", &guest_required_params, RESULT_OBJECT, &proto_limits,
           "What a guest is limited to; max_conns as it is in force."),
    METHOD(METHOD_LIMIT_SET, "limit.set", &limit_set_params, RESULT_OBJECT, &proto_limits,
           "Changes what a guest is limited to, while it runs."),
    METHOD(METHOD_POLICY_LEARN, "policy.learn", &learn_params, RESULT_EMPTY, NULL,
           "Begins to record what a guest opens, or ends it."),
    METHOD(METHOD_POLICY_LEARNED, "policy.learned", &guest_required_params, RESULT_OBJECT,
           &proto_learn_result, "What was recorded so far, as rules."),
    METHOD(METHOD_LOCALHOST_SET, "localhost.set", &localhost_params, RESULT_EMPTY, NULL,
           "127.0.0.1 inside the guest reaches its gateway where nothing local listens."),
    METHOD(METHOD_DNS_LIST, "dns.list", &dns_list_params, RESULT_LIST, &proto_record,
           "The records that the name service answers, but PTR, which it makes itself."),
    METHOD(METHOD_DNS_ADD, "dns.add", &dns_add_params, RESULT_EMPTY, NULL,
           "Adds static records, all or none."),
    METHOD(METHOD_DNS_REMOVE, "dns.remove", &dns_remove_params, RESULT_EMPTY, NULL,
           "Removes static records."),
    METHOD(METHOD_DNS_FLUSH, "dns.flush", &dns_flush_params, RESULT_EMPTY, NULL,
           "Forgets what the name service has cached of the outside."),
    METHOD(
        METHOD_DNS_LOG, "dns.log", &dns_log_params, RESULT_OBJECT, &proto_dns_log,
        "The latest queries that the name service answered. They are kept from the first call on, "
        "until ten minutes after the last."),
    METHOD(METHOD_EVENTS_SUBSCRIBE, "events.subscribe", &guest_optional_params, RESULT_EMPTY, NULL,
           "From now on `event` notifications arrive on this connection, as the last call chose "
           "them."),
    METHOD(METHOD_SYSTEM_STATUS, "system.status", &no_params, RESULT_OBJECT, &proto_status,
           "What the daemon is and has."),
    METHOD(METHOD_SYSTEM_DOCTOR, "system.doctor", &no_params, RESULT_LIST, &proto_check,
           "Checks of the host, each with its remedy."),
    METHOD(METHOD_SYSTEM_TEARDOWN, "system.teardown", &no_params, RESULT_EMPTY, NULL,
           "Removes everything that moat ever made on this host; the daemon ends."),
};

static_assert(ARRAY_SIZE(methods) == METHOD_COUNT_, "each method has a row");

const struct proto_method *proto_method_get(enum method_id id)
{
    return &methods[id];
}

const struct proto_method *proto_method_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        if (strcmp(methods[i].name, name) == 0)
            return &methods[i];
    }
    return NULL;
}

void proto_params_init(const struct proto_method *method, union params *ret_params)
{
    memset(ret_params, 0, sizeof(*ret_params));
    proto_object_init(method->params, ret_params);
}

void proto_params_deinit(const struct proto_method *method, union params *params)
{
    if (method && method->params->deinit)
        method->params->deinit(params);
    memset(params, 0, sizeof(*params));
}
