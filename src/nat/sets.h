/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sets and maps of our tables: what their keys and data are, and what an element does when it
 * matches. Rules (rules.h) look packets up in them; batch.c knows what the elements stand for. */
#pragma once

#include <libnftnl/set.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nat/chains.h"

/* Sets and maps; all are hash tables, so that one element costs the same among 1 and 100,000.
 * "group" is a link group as struct nat_network has it; proto.port is inet_proto . inet_service. */
enum set_id {
    SET_SAME,         /* group . group: may open connections to each other (a network and itself) */
    SET_PASSAGE,      /* group . group: the first may open connections to the second */
    SET_PASSAGE_PORT, /* group . group . proto . port: to these ports, as ranges */
    SET_INTERNAL,     /* group: nothing in or out */
    SET_HOST_ACCESS,  /* group: reaches the host's services */
    SET_GATEWAY4,     /* address: all gateways of networks */
    SET_GATEWAY6,
    SET_OWN4, /* group . address: a network and its own gateway */
    SET_OWN6,
    SET_DNS4, /* address . proto . port: where the name service answers */
    SET_DNS6,
    SET_OWN_DNS4, /* group . proto . port: the same, of a network's own gateway */
    SET_SOURCE4,  /* map group : address: the gateway, as source where the client's can't be kept */
    SET_SOURCE6,
    SET_GUEST4, /* group . address: endpoints */
    SET_GUEST6,
    SET_LOCALHOST4, /* group . address: endpoints whose localhost leads here */
    SET_CLOSED4,    /* address: nobody may open a connection to it (mode outbound) */
    SET_CLOSED6,
    SET_PUB4, /* map proto . port : address . port, on every address of the host */
    SET_PUB6,
    SET_PUB4_AT, /* map address . proto . port : address . port, on one */
    SET_PUB6_AT,
    SET_RELAY4,    /* proto . port: listeners of the relay worker that IPv4 clients use */
    SET_RELAY6,    /* proto . port: IPv6 listeners of the relay worker on every address */
    SET_RELAY6_AT, /* address . proto . port: on one */
    SET_SUBNET4,   /* family . addresses: subnets of networks, as ranges */
    SET_SUBNET6,
    SET_SPECIAL4, /* family . addresses: never public (base/rule.h), as ranges; constant */
    SET_SPECIAL6,
    SET_POLICY_PUBLIC,  /* map interface : chain: policies towards public addresses */
    SET_POLICY_PRIVATE, /* map interface : chain: towards the rest */
    SET_FROM4,          /* interface . address: what may come in there, as seen by routing */
    SET_FROM6,
    SET_DROPPED, /* interface: counts what came in there and was not given, as seen by routing */
    SET_DENIED4, /* group . address: counts what was refused to an endpoint */
    SET_DENIED6,
    SET_LOGGED4, /* group . address: endpoints whose refused connections are told of */
    SET_LOGGED6,
    SET_SILENT4, /* group . address: endpoints that are refused in silence */
    SET_SILENT6,
    SET_CONNS4, /* group . address: endpoints that have more connections than they may */
    SET_CONNS6,
    SET_RATE4, /* group . address: endpoints that open more a second than they may */
    SET_RATE6,
    SET_DROPPED_PORT, /* interface: the same, as seen by the bridge */
    SET_PORT4,        /* interface . MAC . address: what may come in there, as seen by the bridge */
    SET_PORT6,
    SET_COUNT_,
};

enum set_field {
    FIELD_NONE,
    FIELD_GROUP,
    FIELD_GROUP_TO, /* the group that a connection leads to */
    FIELD_IP4,
    FIELD_IP6,
    FIELD_PROTO,
    FIELD_PORT,
    FIELD_FAMILY,    /* NFPROTO_* */
    FIELD_INTERFACE, /* name */
    FIELD_MAC,
    FIELD_POLICY, /* data only: the chain of a policy: id, version (eight bytes each) */
};

#define SET_FIELDS 4

struct set_def {
    const char *name;
    const char *comment;
    uint8_t key[SET_FIELDS];  /* enum set_field, ended by FIELD_NONE */
    uint8_t data[SET_FIELDS]; /* empty: a set, not a map */
    bool ranges;              /* keys are ranges, which must not overlap; two fields at least */
    enum ruleset_table table;
};

#define SET_KEY_MAX 40
#define SET_DATA_MAX 20

const struct set_def *set_def_get(enum set_id id);

/* What each element of the set does when it matches. */
struct set_state {
    bool counts;
    uint8_t per_second; /* then matches so often only; 0: always */
    bool over_conns;    /* matches beyond as many connections as the element says */
    bool over_rate;     /* matches beyond as many a second */
};

/* NULL: nothing. */
const struct set_state *set_state_get(enum set_id id);
/* Bytes of a key or of the data: each field takes a multiple of four (registers). */
size_t set_key_length(enum set_id id);
size_t set_data_length(enum set_id id);
/* A set of that kind, under any name; NULL without memory. id: see NFTA_SET_ID. */
struct nftnl_set *set_def_build(const struct set_def *def, const char *name, uint32_t id);
/* The set of the tables itself, with what its elements do; NULL without memory. */
struct nftnl_set *set_build(enum set_id id);
/* All that describes a set but its elements, as text for the ruleset's tag. */
void set_format(enum set_id id, char *text, size_t size);
