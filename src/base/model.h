/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The things that moat manages, as every layer sees them: rows of the store, results of the API,
 * input of plans. The words are those of the contract. Structs own their lists; *_deinit accepts
 * half-built ones. */
#pragma once

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/address.h"
#include "base/list.h"
#include "base/name.h"
#include "base/span.h"

#define DEFAULT_NETWORK "default"

/* Limits on what a caller controls (each has a test). */
#define LIMIT_NETWORKS 1024       /* networks in all */
#define LIMIT_GUESTS 65536        /* guests in all */
#define LIMIT_ENDPOINTS 16        /* networks of one guest */
#define LIMIT_PORTS_PER_GUEST 256 /* port entries (a range is one) of one guest */
#define LIMIT_ALIASES 16          /* of one endpoint */
#define LIMIT_LABELS 64           /* of one object */
#define LIMIT_LABEL_KEY 128
#define LIMIT_LABEL_VALUE 1024
#define LIMIT_DNS_SERVERS 8
#define LIMIT_DNS_SEARCH 8
#define LIMIT_HOSTS 64   /* --add-host entries */
#define LIMIT_RULES 1024 /* allow + deny of one policy */
#define LIMIT_DNS_RECORDS 65536
#define LIMIT_DNS_VALUES 64 /* of one `dns add` */
#define LIMIT_CONNS 1000000 /* of --max-conns and --conn-rate */
#define LIMIT_PASSAGES 4096 /* spans of ports between networks in all */

#define NETNS_HANDLE_MAX 128

enum guest_mode { MODE_DISABLED, MODE_LOOPBACK, MODE_OUTBOUND, MODE_FULL, MODE_COUNT_ };
enum guest_kind { KIND_NETNS, KIND_TAP, KIND_COUNT_ };

/* Names as in the contract; parse returns -EINVAL for others. */
const char *guest_mode_name(enum guest_mode mode);
int guest_mode_parse(const char *text, enum guest_mode *ret_mode);
const char *guest_kind_name(enum guest_kind kind);
int guest_kind_parse(const char *text, enum guest_kind *ret_kind);

/* What guests of one network may open connections to in another, for API results. */
struct opening {
    char network[NAME_MAX_LENGTH + 1]; /* the other one */
    struct strings ports;              /* as in span.h; empty: everything */
};

struct network {
    int64_t id;                   /* row id, > 0 once stored; never reused */
    char uid[ID_TEXT_LENGTH + 1]; /* the API's `id` */
    char name[NAME_MAX_LENGTH + 1];
    char bridge[IFNAMSIZ];
    struct cidr subnet; /* IPv4; absent on an IPv6-only network */
    struct ip gateway;
    struct cidr ip_range; /* absent: the whole subnet */
    struct cidr subnet6;
    struct ip gateway6;
    struct mac mac; /* of the bridge; fixed, so that it survives a rebuild */
    bool internal;
    bool isolated;
    bool host_access;
    bool dns;               /* the name service answers on the gateway */
    uint32_t mtu;           /* 0: follows the host's default route */
    uint32_t mtu_now;       /* what it is at the moment; not stored */
    struct ips dns_servers; /* upstream servers instead of the host's */
    struct labels labels;
    int64_t created_s;     /* UTC, seconds since the epoch */
    struct strings guests; /* names; filled for API results only, as are the following */
    struct opening *allowed_to;
    size_t n_allowed_to;
    struct opening *allowed_from;
    size_t n_allowed_from;
};

/* A span of ports that guests of one network may open connections to in another. */
struct passage {
    int64_t id;
    int64_t from_id;
    int64_t to_id;
    char from[NAME_MAX_LENGTH + 1];
    char to[NAME_MAX_LENGTH + 1];
    struct port_span span;
};

struct endpoint {
    int64_t id; /* row id, > 0 once stored; never reused; names the host interface */
    int64_t guest_id;
    int64_t network_id;
    uint32_t position; /* order in the guest: eth<position> */
    char network[NAME_MAX_LENGTH + 1];
    char interface[IFNAMSIZ];      /* inside the guest: eth0, …; "" for a tap */
    char host_interface[IFNAMSIZ]; /* on the host: mv<id>, or the tap's name */
    struct ip ip;
    uint8_t prefix;
    struct ip ip6;
    uint8_t prefix6;
    struct ip
        gateway; /* of the network; absent on an internal network is a plan's matter, not stored */
    struct mac mac;
    bool routed; /* a routed port (DESIGN.md), else a member of the bridge */
    struct strings aliases;
};

#define PORT_WHY_MAX 160

struct port {
    int64_t id;
    int64_t guest_id;
    struct ip host_ip; /* absent: every host address; 0.0.0.0, ::: every one of the family */
    uint16_t host_port;
    uint16_t guest_port;
    uint16_t count;             /* 1, or the length of the range */
    uint8_t protocol;           /* IPPROTO_TCP or IPPROTO_UDP */
    char waiting[PORT_WHY_MAX]; /* why it is not served yet; filled for API results only */
};

struct policy {
    struct strings allow; /* RULEs as text, in the order given */
    struct strings deny;
    bool log_denied;
    bool silent; /* what is denied is dropped, not refused; "drop" in the API */
};

/* What a VMM needs of one tap, whatever VMM it is. */
struct vmm_interface {
    char tap[IFNAMSIZ];
    struct mac mac;
    struct cidr address;
    struct cidr address6;
    struct ip gateway; /* of the default route; absent where it leads elsewhere */
    struct ip gateway6;
    struct ips dns;
    uint32_t mtu;
};

/* Firecracker's NetworkInterface. */
struct vmm_device {
    char iface_id[IFNAMSIZ];
    struct mac guest_mac;
    char host_dev_name[IFNAMSIZ];
};

struct vmm {
    char kernel_ip[256]; /* the argument "ip=…" of a Linux kernel; "" without IPv4 */
    struct vmm_interface *interfaces;
    size_t n_interfaces;
    struct vmm_device *devices;
    size_t n_devices;
};

/* What a guest is limited to, on each of its interfaces. */
struct limits {
    uint64_t rate_up; /* bits a second that it sends; 0: any */
    uint64_t rate_down;
    uint32_t max_conns; /* that go through the host at once; 0: a share of the table */
    uint32_t conn_rate; /* that it opens a second; 0: any */
};

/* What was dropped of a guest, counted since its rules were made. */
struct drops_result {
    uint64_t frames;      /* that it may not send */
    uint64_t connections; /* that it may not open */
};

struct guest {
    int64_t id;
    char uid[ID_TEXT_LENGTH + 1];
    char name[NAME_MAX_LENGTH + 1];
    enum guest_kind kind;
    enum guest_mode mode;
    char *netns;        /* path, if it was attached by path; else NULL */
    int32_t pid;        /* as the host sees it; 0 if unknown */
    uint64_t pid_start; /* start time of pid in clock ticks (proc(5) field 22): tells reuse */
    uint64_t netns_dev; /* identity of the namespace: st_dev and st_ino of its nsfs file */
    uint64_t netns_ino;
    char netns_handle[NETNS_HANDLE_MAX]; /* finds it without keeping it (link.h); "": can't */
    bool ephemeral;    /* gone when its owner's connection closes or its owner ends */
    int32_t owner_pid; /* the client that asked for an ephemeral guest; else 0 */
    uint64_t owner_start;
    uint32_t owner_uid;
    bool localhost;    /* moat localhost on */
    bool dns_inject;   /* its networks' name servers come first in its resolv.conf */
    int64_t tap_owner; /* uid and gid that may open a tap; -1: none */
    int64_t tap_group;
    bool tap_multi_queue;
    bool tap_vnet_hdr;
    struct endpoint *endpoints;
    size_t n_endpoints;
    struct port *ports;
    size_t n_ports;
    struct policy policy;
    struct limits limits;
    struct strings hosts;      /* "NAME:IP" */
    struct ips dns;            /* --dns */
    struct strings dns_search; /* --dns-search */
    struct labels labels;
    int64_t created_s;
    bool has_vmm; /* filled for API results of taps only */
    struct vmm vmm;
    bool has_drops; /* filled for API results only: something was dropped */
    struct drops_result drops;
};

/* A static record of `dns add`. */
struct dns_record {
    int64_t id;
    int64_t network_id;                /* 0: on every network */
    char network[NAME_MAX_LENGTH + 1]; /* "" for every network */
    char name[254];                    /* without the domain; may begin with "*." */
    uint16_t type;                     /* enum record_type */
    char *value;                       /* as base/record.h keeps it */
};

void opening_deinit(struct opening *opening);
void network_deinit(struct network *network);
void endpoint_deinit(struct endpoint *endpoint);
void policy_deinit(struct policy *policy);
void guest_deinit(struct guest *guest);
void dns_record_deinit(struct dns_record *record);
void dns_records_free(struct dns_record *records, size_t count);

/* PORT syntax of the contract: [HOST_IP:][HOST_PORT[-END]:]GUEST_PORT[-END][/tcp|/udp]. A host_port
 * of 0 in the result means "choose one". Returns 0, or -EINVAL with a field error named `field`.
 * Both ranges must have the same length; ports are 1–65535. */
struct error;
int port_parse(const char *text, const char *field, struct port *ret_port, struct error *error);
#define PORT_TEXT_MAX 96
/* The contract's PORT, always with the protocol: "[::1]:8080-8081:80-81/udp". Without a host port
 * (0) that part is left out. port_parse reads it back. Returns text. */
const char *port_format(const struct port *port, char text[PORT_TEXT_MAX]);
