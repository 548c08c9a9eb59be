/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For each guest with domain rules, and for those whose connections are told of, there is one
 * *domain*: its rules, and the addresses that it was given. An address has *facts* (for this name,
 * until then) and *outcomes* (this service is open, or closed, until then), which follow from facts
 * and rules and are what the kernel has. An outcome lasts as long as the longest fact that leads to
 * it.
 *
 * A new policy makes a new domain out of the facts of the old one, beside it, and takes its place
 * when the kernel has the policy. Facts whose time is over are remembered for a while, since
 * connections that they led to may run; they leave when the number of addresses has doubled. */
#include "service/domain.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "nat/policy_services.h"
#include "service/private.h"
#include "worker/dns_codec.h"
#include "worker/dns_table.h"

#define ADDRESSES_MAX 16384 /* of one guest */
#define OUTCOMES_MAX 65536  /* of one guest */
#define FACTS_MAX 64        /* names of one address; beyond, the one that ends first goes */
#define SWEEP_FIRST 256     /* addresses */
#define TTL_MAX_S 86400
#define REMEMBERED_MS 86400000 /* facts, beyond their time */
#define LABELS_MAX 128
#define SALT_ADDRESS 32

struct fact {
    char *name;
    uint64_t given_ns; /* last: two may come in one millisecond */
    uint64_t until_ms;
};

struct outcome {
    uint32_t service;
    bool closes;
    uint64_t until_ms;
};

struct address {
    struct ip ip;
    struct fact *facts;
    size_t n_facts;
    struct outcome *outcomes;
    size_t n_outcomes;
};

/* Rules with a hash of the domain of each, by which the few that cover a name are found. */
struct rule_list {
    struct policy_rules rules;
    uint32_t *hashes;
    struct policy_rule *found; /* room for as many: those that count for what is at hand */
    size_t n_found;
};

struct domain {
    int64_t guest_id;
    uint64_t version;
    struct rule_list allow;
    struct rule_list deny;
    struct policy_services services;
    struct dns_table addresses;
    size_t n_outcomes;
    size_t sweep_at; /* number of addresses at which those that are over leave */
    bool reports;    /* of every name, whether rules speak of it or not */
    bool full;       /* said already */
};

/* An opening of the former moatd. */
struct loaded {
    int64_t guest_id;
    struct ip ip;
    struct fact fact;
};

struct domains {
    struct domain **items; /* sorted by guest */
    size_t count;
    struct loaded *loaded;
    size_t n_loaded;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t now_ms(void)
{
    return now_ns() / 1000000;
}

/* --- rules --- */

/* FNV-1a of a name in lower case. */
static uint32_t name_hash(const char *name, size_t length)
{
    uint32_t hash = 0x811c9dc5;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)tolower((unsigned char)name[i])) * 0x01000193;
    return hash;
}

static int rule_list_init(struct rule_list *list, const struct strings *texts, const char *field,
                          struct error *error)
{
    int r = policy_rules_parse(texts, field, &list->rules, error);

    if (r < 0)
        return r;
    list->hashes = calloc(list->rules.count + 1, sizeof(*list->hashes));
    list->found = calloc(list->rules.count + 1, sizeof(*list->found));
    if (!list->hashes || !list->found)
        return error_set(error, ENOMEM, "policy");
    for (size_t i = 0; i < list->rules.count; i++)
        list->hashes[i] = name_hash(list->rules.items[i].name, strlen(list->rules.items[i].name));
    return 0;
}

static void rule_list_deinit(struct rule_list *list)
{
    policy_rules_deinit(&list->rules);
    free(list->hashes);
    free(list->found);
}

struct suffixes {
    uint32_t hashes[LABELS_MAX];
    size_t count;
};

static void suffixes_of(const char *name, struct suffixes *ret_suffixes)
{
    ret_suffixes->count = 0;
    while (name && *name && ret_suffixes->count < LABELS_MAX) {
        ret_suffixes->hashes[ret_suffixes->count++] = name_hash(name, strlen(name));
        name = strchr(name, '.');
        if (name)
            name++;
    }
}

static bool suffixes_have(const struct suffixes *suffixes, uint32_t hash)
{
    for (size_t i = 0; i < suffixes->count; i++)
        if (suffixes->hashes[i] == hash)
            return true;
    return false;
}

/* The domain rules that cover the name. */
static void rule_list_find(struct rule_list *list, const char *name,
                           const struct suffixes *suffixes)
{
    list->n_found = 0;
    for (size_t i = 0; i < list->rules.count; i++)
        if (suffixes_have(suffixes, list->hashes[i]) &&
            policy_rule_covers_name(&list->rules.items[i], name))
            list->found[list->n_found++] = list->rules.items[i];
}

/* And those that deny the address, whatever its name; n_names: how many were found by name. */
static void rule_list_add_address(struct rule_list *list, size_t n_names,
                                  const struct policy_flow *flow)
{
    list->n_found = n_names;
    for (size_t i = 0; i < list->rules.count; i++)
        if (!policy_rule_is_domain(&list->rules.items[i]) &&
            policy_rule_covers_destination(&list->rules.items[i], flow))
            list->found[list->n_found++] = list->rules.items[i];
}

/* --- life --- */

static void address_free(struct address *address)
{
    for (size_t i = 0; i < address->n_facts; i++)
        free(address->facts[i].name);
    free(address->facts);
    free(address->outcomes);
    free(address);
}

void domain_free(struct domain *domain)
{
    if (!domain)
        return;
    for (uint32_t i = 0; domain->addresses.slots && i <= domain->addresses.mask; i++)
        if (domain->addresses.slots[i].item)
            address_free(domain->addresses.slots[i].item);
    dns_table_deinit(&domain->addresses);
    rule_list_deinit(&domain->allow);
    rule_list_deinit(&domain->deny);
    policy_services_deinit(&domain->services);
    free(domain);
}

DEFINE_CLEANUP(struct domain, domain_free)

struct domains *domains_new(void)
{
    dns_hash_seed(); /* guests have a hand in the addresses */
    return calloc(1, sizeof(struct domains));
}

void domains_loaded_forget(struct service *service)
{
    struct domains *domains = service->domains;

    for (size_t i = 0; i < domains->n_loaded; i++)
        free(domains->loaded[i].fact.name);
    free(domains->loaded);
    domains->loaded = NULL;
    domains->n_loaded = 0;
}

void domains_free(struct domains *domains)
{
    struct service service = {.domains = domains};

    if (!domains)
        return;
    for (size_t i = 0; i < domains->count; i++)
        domain_free(domains->items[i]);
    free(domains->items);
    domains_loaded_forget(&service);
    free(domains);
}

/* Where the guest's domain is, or would be. */
static size_t domain_place(const struct domains *domains, int64_t guest_id)
{
    size_t low = 0;

    for (size_t high = domains->count; low < high;) {
        size_t middle = low + (high - low) / 2;

        if (domains->items[middle]->guest_id < guest_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct domain *domain_find(const struct domains *domains, int64_t guest_id)
{
    size_t place = domain_place(domains, guest_id);

    if (place == domains->count || domains->items[place]->guest_id != guest_id)
        return NULL;
    return domains->items[place];
}

/* --- addresses --- */

static uint32_t ip_hash(const struct ip *ip)
{
    return dns_hash(ip->bytes, sizeof(ip->bytes), SALT_ADDRESS);
}

static bool address_has_ip(const void *item, const void *key)
{
    return ip_equal(&((const struct address *)item)->ip, key);
}

static struct address *address_find(const struct domain *domain, const struct ip *ip)
{
    return dns_table_find(&domain->addresses, ip_hash(ip), address_has_ip, ip);
}

/* Drops what has been over for so long; returns whether anything of the address is left. */
static bool address_sweep(struct domain *domain, struct address *address, uint64_t now,
                          uint64_t remembered_ms)
{
    size_t kept = 0;

    for (size_t i = 0; i < address->n_facts; i++) {
        if (address->facts[i].until_ms + remembered_ms > now)
            address->facts[kept++] = address->facts[i];
        else
            free(address->facts[i].name);
    }
    address->n_facts = kept;
    kept = 0;
    for (size_t i = 0; i < address->n_outcomes; i++)
        if (address->outcomes[i].until_ms > now)
            address->outcomes[kept++] = address->outcomes[i];
    domain->n_outcomes -= address->n_outcomes - kept;
    address->n_outcomes = kept;
    return address->n_facts > 0;
}

/* Removing moves other items into the freed slot, which is looked at again. */
static void domain_sweep(struct domain *domain, uint64_t now, uint64_t remembered_ms)
{
    for (uint32_t i = 0; domain->addresses.slots && i <= domain->addresses.mask;) {
        struct address *address = domain->addresses.slots[i].item;

        if (!address || address_sweep(domain, address, now, remembered_ms)) {
            i++;
            continue;
        }
        dns_table_remove(&domain->addresses, ip_hash(&address->ip), address);
        address_free(address);
    }
    domain->sweep_at = 2 * (size_t)domain->addresses.count;
    if (domain->sweep_at < SWEEP_FIRST)
        domain->sweep_at = SWEEP_FIRST;
}

/* NULL: no memory, or there are too many. */
static struct address *address_get(struct domain *domain, const struct ip *ip, uint64_t now)
{
    struct address *address = address_find(domain, ip);

    if (address)
        return address;
    if (domain->addresses.count >= domain->sweep_at)
        domain_sweep(domain, now, REMEMBERED_MS);
    if (domain->addresses.count >= ADDRESSES_MAX)
        domain_sweep(domain, now, 0);
    if (domain->addresses.count >= ADDRESSES_MAX)
        return NULL;
    address = calloc(1, sizeof(*address));
    if (!address)
        return NULL;
    address->ip = *ip;
    if (dns_table_add(&domain->addresses, ip_hash(ip), address) < 0) {
        free(address);
        return NULL;
    }
    return address;
}

static struct fact *fact_find(const struct address *address, const char *name)
{
    for (size_t i = 0; i < address->n_facts; i++)
        if (strcasecmp(address->facts[i].name, name) == 0)
            return &address->facts[i];
    return NULL;
}

static struct fact *fact_ends_first(struct address *address)
{
    struct fact *first = &address->facts[0];

    for (size_t i = 1; i < address->n_facts; i++)
        if (address->facts[i].until_ms < first->until_ms)
            first = &address->facts[i];
    return first;
}

/* 0 or -ENOMEM. */
static int fact_set(struct address *address, const char *name, uint64_t given_ns, uint64_t until_ms)
{
    struct fact *fact = fact_find(address, name);
    struct fact *facts;
    char *copy;

    if (fact) {
        if (fact->until_ms < until_ms)
            fact->until_ms = until_ms;
        if (fact->given_ns < given_ns)
            fact->given_ns = given_ns;
        return 0;
    }
    copy = strdup(name);
    if (!copy)
        return -ENOMEM;
    if (address->n_facts == FACTS_MAX) {
        fact = fact_ends_first(address);
        free(fact->name);
        *fact = (struct fact){copy, given_ns, until_ms};
        return 0;
    }
    facts = list_grow(address->facts, address->n_facts, sizeof(*facts));
    if (!facts) {
        free(copy);
        return -ENOMEM;
    }
    address->facts = facts;
    facts[address->n_facts++] = (struct fact){copy, given_ns, until_ms};
    return 0;
}

/* --- outcomes --- */

static struct outcome *outcome_find(const struct address *address, uint32_t service, bool closes)
{
    for (size_t i = 0; i < address->n_outcomes; i++)
        if (address->outcomes[i].service == service && address->outcomes[i].closes == closes)
            return &address->outcomes[i];
    return NULL;
}

/* 0, 1 when the kernel must be told, -ENOMEM or -ENOSPC. *ret_renews: it was there already. */
static int outcome_set(struct domain *domain, struct address *address, uint32_t service,
                       bool closes, uint64_t until_ms, bool *ret_renews)
{
    struct outcome *outcome = outcome_find(address, service, closes);
    struct outcome *outcomes;

    *ret_renews = outcome;
    if (outcome) {
        if (outcome->until_ms >= until_ms)
            return 0;
        outcome->until_ms = until_ms;
        return 1;
    }
    if (domain->n_outcomes >= OUTCOMES_MAX)
        return -ENOSPC;
    outcomes = list_grow(address->outcomes, address->n_outcomes, sizeof(*outcomes));
    if (!outcomes)
        return -ENOMEM;
    address->outcomes = outcomes;
    outcomes[address->n_outcomes++] = (struct outcome){service, closes, until_ms};
    domain->n_outcomes++;
    return 1;
}

static void opening_append(const struct domain *domain, const struct address *address,
                           const struct outcome *outcome, const char *name, bool renews,
                           uint64_t now, struct nat_batch *batch)
{
    nat_batch_opening(batch, &(struct nat_opening){
                                 .policy_id = domain->guest_id,
                                 .policy_version = domain->version,
                                 .ip = address->ip,
                                 .service = outcome->service,
                                 .closes = outcome->closes,
                                 .renews = renews,
                                 .timeout_ms = outcome->until_ms - now,
                                 .name = name,
                             });
}

static int outcome_add(struct domain *domain, struct address *address, const struct fact *fact,
                       uint32_t service, bool closes, uint64_t now, struct nat_batch *batch)
{
    struct outcome outcome = {service, closes, fact->until_ms};
    bool renews;
    int r = outcome_set(domain, address, service, closes, fact->until_ms, &renews);

    if (r == 1 && batch)
        opening_append(domain, address, &outcome, fact->name, renews, now, batch);
    return r < 0 ? r : 0;
}

static bool is_denied_by_name(const struct rule_list *deny, size_t n_names,
                              const struct policy_flow *flow)
{
    for (size_t i = 0; i < n_names; i++)
        if (policy_rule_covers_service(&deny->found[i], flow))
            return true;
    return false;
}

/* What the fact makes of each service. The rules that cover its name were found: as many of the
 * denying ones as n_denied. */
static int fact_judge(struct domain *domain, struct address *address, const struct fact *fact,
                      size_t n_denied, uint64_t now, struct nat_batch *batch)
{
    const char *names[] = {fact->name};
    struct policy_flow flow = {.ip = address->ip, .names = names, .n_names = 1};
    struct policy_rules allow = {domain->allow.found, domain->allow.n_found};
    struct policy_rules deny;
    int r = 0;

    rule_list_add_address(&domain->deny, n_denied, &flow);
    deny = (struct policy_rules){domain->deny.found, domain->deny.n_found};
    for (uint32_t i = 0; r == 0 && i < domain->services.count; i++) {
        flow.protocol = domain->services.items[i].protocol;
        flow.port = domain->services.items[i].port;
        if (is_denied_by_name(&domain->deny, n_denied, &flow))
            r = outcome_add(domain, address, fact, i, true, now, batch);
        else if (allow.count && policy_allows(&allow, &deny, &flow, NULL))
            r = outcome_add(domain, address, fact, i, false, now, batch);
    }
    return r;
}

/* Finds the rules that cover the name; returns how many deny it. */
static size_t rules_find(struct domain *domain, const char *name)
{
    struct suffixes suffixes;

    suffixes_of(name, &suffixes);
    rule_list_find(&domain->allow, name, &suffixes);
    rule_list_find(&domain->deny, name, &suffixes);
    return domain->deny.n_found;
}

/* --- a new policy --- */

/* Where the guest's connections are told of, the names that led to them are wanted. */
static bool wants_reports(const struct service *service, const struct guest *guest)
{
    return guest->policy.log_denied || learn_is_on(service, guest->id);
}

static int domain_new(const struct guest *guest, bool reports, struct domain **ret_domain,
                      struct error *error)
{
    _cleanup_(domain_freep) struct domain *domain = calloc(1, sizeof(*domain));
    int r;

    if (!domain)
        return error_set(error, ENOMEM, "policy");
    domain->guest_id = guest->id;
    domain->version = policy_version(&guest->policy);
    domain->sweep_at = SWEEP_FIRST;
    r = rule_list_init(&domain->allow, &guest->policy.allow, "allow", error);
    if (r >= 0)
        r = rule_list_init(&domain->deny, &guest->policy.deny, "deny", error);
    if (r < 0)
        return r;
    domain->reports = reports;
    if (!reports && !policy_has_domains(&domain->allow.rules, &domain->deny.rules))
        return 0;
    r = policy_services_compile(&domain->allow.rules, &domain->deny.rules, &domain->services);
    if (r < 0) /* nat_batch_policy has refused those that have too many */
        return error_set(error, r, "policy");
    *ret_domain = TAKE_PTR(domain);
    return 0;
}

/* Takes a fact over, with what the rules make of it. What finds no room is closed until it is asked
 * for again. */
static void domain_take(struct domain *domain, const struct ip *ip, const struct fact *former,
                        uint64_t now, struct nat_batch *batch)
{
    size_t n_denied = rules_find(domain, former->name);
    struct address *address;

    if (domain->allow.n_found == 0 && n_denied == 0 && !domain->reports)
        return;
    address = address_get(domain, ip, now);
    if (address && fact_set(address, former->name, former->given_ns, former->until_ms) == 0 &&
        former->until_ms > now)
        fact_judge(domain, address, fact_find(address, former->name), n_denied, now, batch);
}

static void domain_take_all(struct domain *domain, const struct domain *former, uint64_t now,
                            struct nat_batch *batch)
{
    for (uint32_t i = 0; former->addresses.slots && i <= former->addresses.mask; i++) {
        const struct address *address = former->addresses.slots[i].item;

        for (size_t j = 0; address && j < address->n_facts; j++)
            domain_take(domain, &address->ip, &address->facts[j], now, batch);
    }
}

int domain_prepare(struct service *service, const struct guest *guest, struct nat_batch *batch,
                   struct domain **ret_domain, struct error *error)
{
    const struct domains *domains = service->domains;
    const struct domain *former = domain_find(domains, guest->id);
    struct domain *domain = NULL;
    uint64_t now = now_ms();
    int r = domain_new(guest, wants_reports(service, guest), &domain, error);

    if (r < 0)
        return r;
    *ret_domain = domain;
    if (!domain)
        return 0;
    if (former)
        domain_take_all(domain, former, now, batch);
    for (size_t i = 0; !former && i < domains->n_loaded; i++)
        if (domains->loaded[i].guest_id == guest->id)
            domain_take(domain, &domains->loaded[i].ip, &domains->loaded[i].fact, now, batch);
    return 0;
}

void domain_forget(struct service *service, int64_t guest_id)
{
    struct domains *domains = service->domains;
    size_t place = domain_place(domains, guest_id);

    if (place == domains->count || domains->items[place]->guest_id != guest_id)
        return;
    domain_free(domains->items[place]);
    domains->count--;
    memmove(&domains->items[place], &domains->items[place + 1],
            (domains->count - place) * sizeof(struct domain *));
}

void domain_install(struct service *service, int64_t guest_id, struct domain *domain)
{
    struct domains *domains = service->domains;
    size_t place = domain_place(domains, guest_id);
    struct domain **items;

    if (!domain) {
        domain_forget(service, guest_id);
        return;
    }
    if (place < domains->count && domains->items[place]->guest_id == guest_id) {
        domain_free(domains->items[place]);
        domains->items[place] = domain;
        return;
    }
    items = list_grow(domains->items, domains->count, sizeof(struct domain *));
    if (!items) { /* nothing more is opened for it until the next repair */
        log_error("policy: %s", strerror(ENOMEM));
        domain_free(domain);
        return;
    }
    domains->items = items;
    memmove(&items[place + 1], &items[place], (domains->count - place) * sizeof(struct domain *));
    items[place] = domain;
    domains->count++;
}

/* Tells the name service what the guest may ask. */
static int permit_tell(struct service *service, const struct guest *guest, struct error *error)
{
    const struct domain *domain = domain_find(service->domains, guest->id);

    if (!domain) {
        names_permit_remove(service->names, guest->id);
        return 0;
    }
    return names_permit_set(service->names,
                            &(struct names_permit){
                                .guest_id = guest->id,
                                .version = domain->version,
                                .allow = &domain->allow.rules,
                                .deny = &domain->deny.rules,
                                .grace_ms = service->config->grace_s * 1000,
                                .report = domain->reports,
                            },
                            error);
}

bool domain_is_current(const struct service *service, const struct guest *guest)
{
    const struct domain *domain = domain_find(service->domains, guest->id);

    return domain && domain->version == policy_version(&guest->policy) &&
           domain->reports == wants_reports(service, guest);
}

int domain_follow(struct service *service, const struct guest *guest, struct error *error)
{
    struct domain *domain = NULL;
    int r = 0;

    if (!domain_is_current(service, guest)) {
        r = domain_prepare(service, guest, NULL, &domain, error);
        if (r >= 0)
            domain_install(service, guest->id, domain);
    }
    return r < 0 ? r : permit_tell(service, guest, error);
}

/* A name that leads to the outcome for so long. */
static const char *outcome_name(const struct address *address, const struct outcome *outcome)
{
    for (size_t i = 0; i < address->n_facts; i++)
        if (address->facts[i].until_ms >= outcome->until_ms)
            return address->facts[i].name;
    return NULL;
}

static void address_append(const struct domain *domain, struct address *address, uint64_t now,
                           struct nat_batch *batch)
{
    for (size_t i = 0; i < address->n_outcomes; i++) {
        const struct outcome *outcome = &address->outcomes[i];
        const char *name = outcome_name(address, outcome);

        if (outcome->until_ms > now && name)
            opening_append(domain, address, outcome, name, false, now, batch);
    }
}

void domain_append(struct service *service, int64_t guest_id, struct nat_batch *batch)
{
    struct domain *domain = domain_find(service->domains, guest_id);
    uint64_t now = now_ms();

    for (uint32_t i = 0; domain && domain->addresses.slots && i <= domain->addresses.mask; i++)
        if (domain->addresses.slots[i].item)
            address_append(domain, domain->addresses.slots[i].item, now, batch);
}

/* --- what a guest is about to be told --- */

/* What no name may lead to: this machine, its guests, and addresses that are nobody's or
 * everybody's, such as a cloud's metadata service. */
static bool is_forbidden(const struct ip *ip)
{
    static const struct ip none6 = {.family = AF_INET6};
    const struct cidr special = {none6, 16}; /* ::, ::1, IPv4-mapped and -compatible */

    if (ip_is_loopback(ip) || ip_is_unspecified(ip) || ip_is_multicast(ip) || ip_is_link_local(ip))
        return true;
    if (ip->family == AF_INET)
        return ip->bytes[0] == 0 || ip->bytes[0] >= 224;
    return cidr_contains_ip(&special, ip) || (ip->bytes[0] == 0xfe && ip->bytes[1] & 0x80);
}

static bool may_open(struct service *service, const struct ip *ip)
{
    struct error error = ERROR_INIT;
    bool local = true;

    if (is_forbidden(ip) || names_is_of_networks(service->names, ip))
        return false;
    if (link_address_is_local(service->link, ip, &local, &error) < 0)
        log_warning("%s", error.text);
    return !local;
}

static bool address_is_live(const struct address *address, uint64_t now)
{
    for (size_t i = 0; address && i < address->n_facts; i++)
        if (address->facts[i].until_ms > now)
            return true;
    return false;
}

static int give_one(struct service *service, struct domain *domain, const char *name,
                    const struct names_address *given, size_t n_denied, struct nat_batch *batch)
{
    uint32_t ttl_s = given->ttl_s < TTL_MAX_S ? given->ttl_s : TTL_MAX_S;
    uint64_t now = now_ms();
    uint64_t until_ms = now + ((uint64_t)ttl_s + service->config->grace_s) * 1000;
    struct address *address = address_find(domain, &given->ip);

    if (!address_is_live(address, now) && !may_open(service, &given->ip))
        return 0;
    if (!address)
        address = address_get(domain, &given->ip, now);
    if (!address)
        return -ENOSPC;
    if (fact_set(address, name, now_ns(), until_ms) < 0)
        return -ENOMEM;
    return fact_judge(domain, address, fact_find(address, name), n_denied, now, batch);
}

static void give_failed(struct domain *domain, const struct names_give *give, const char *why)
{
    if (!domain->full)
        log_warning("guest %lld: the addresses of %s can't be opened: %s",
                    (long long)domain->guest_id, give->name, why);
    domain->full = true;
}

static int give_all(struct service *service, struct domain *domain, const struct names_give *give,
                    size_t n_denied, struct error *error)
{
    struct nat_batch *batch = nat_batch_new(service->nat);
    int r = 0;

    if (!batch)
        return error_set(error, ENOMEM, "names");
    for (size_t i = 0; r == 0 && i < give->count; i++)
        r = give_one(service, domain, give->name, &give->addresses[i], n_denied, batch);
    if (r < 0)
        error_set(error, r, "it has too many at a time");
    else
        r = nat_batch_commit(batch, error);
    /* What was noted here and is not in the kernel is put there by a repair. */
    if (r < 0)
        reconcile_schedule(service);
    nat_batch_free(batch);
    return r;
}

/* Nobody waits: what finds no room is not remembered. */
static void note_all(const struct service *service, struct domain *domain,
                     const struct names_give *give)
{
    uint64_t now = now_ms();

    for (size_t i = 0; i < give->count; i++) {
        struct address *address = address_get(domain, &give->addresses[i].ip, now);
        uint32_t ttl_s = give->addresses[i].ttl_s;

        if (ttl_s > TTL_MAX_S)
            ttl_s = TTL_MAX_S;
        if (address)
            (void)fact_set(address, give->name, now_ns(),
                           now + ((uint64_t)ttl_s + service->config->grace_s) * 1000);
    }
}

enum names_given domain_give(void *userdata, const struct names_give *give)
{
    struct service *service = userdata;
    struct domain *domain = domain_find(service->domains, give->guest_id);
    struct error error = ERROR_INIT;
    size_t n_denied;

    if (!domain || !policy_allows_name(&domain->allow.rules, &domain->deny.rules, give->name, NULL))
        return NAMES_GIVEN_REFUSED;
    n_denied = rules_find(domain, give->name);
    if (!give->wait || (domain->allow.n_found == 0 && n_denied == 0)) {
        if (domain->reports)
            note_all(service, domain, give);
        return NAMES_GIVEN_OPEN;
    }
    if (give_all(service, domain, give, n_denied, &error) < 0) {
        give_failed(domain, give, error.text);
        return NAMES_GIVEN_FAILED;
    }
    domain->full = false;
    return NAMES_GIVEN_OPEN;
}

/* Names of guests are no names of the outside, and a domain rule never opens a guest. */
static int check_rules(const struct service *service, const struct policy_rules *rules,
                       const char *prefix, const char *name, struct error *error)
{
    struct policy_rule ours = {.destination = RULE_BOTH};
    char field[64];
    char text[RULE_TEXT_MAX];

    snprintf(ours.name, sizeof(ours.name), "%s", service->config->domain);
    for (size_t i = 0; i < rules->count; i++) {
        const struct policy_rule *rule = &rules->items[i];

        if (!policy_rule_is_domain(rule) || !policy_rule_covers_name(&ours, rule->name))
            continue;
        snprintf(field, sizeof(field), "%s%s[%zu]", prefix, name, i);
        return error_set_field(
            error, field,
            "%s: \"%.80s\" is a name of guests, which a domain rule never opens; "
            "give the guest's address",
            field, policy_rule_format(rule, text));
    }
    return 0;
}

int domain_check(const struct service *service, const struct policy *policy, const char *prefix,
                 struct error *error)
{
    struct policy_rules allow = {0};
    struct policy_rules deny = {0};
    int r = policy_rules_parse(&policy->allow, "allow", &allow, error);

    if (r >= 0)
        r = policy_rules_parse(&policy->deny, "deny", &deny, error);
    if (r >= 0)
        r = check_rules(service, &allow, prefix, "allow", error);
    if (r >= 0)
        r = check_rules(service, &deny, prefix, "deny", error);
    policy_rules_deinit(&allow);
    policy_rules_deinit(&deny);
    return r;
}

static int latest_first(const void *a, const void *b)
{
    const struct fact *one = a;
    const struct fact *other = b;

    return one->given_ns > other->given_ns ? -1 : one->given_ns < other->given_ns;
}

size_t domain_names_find(struct service *service, int64_t guest_id, const struct ip *ip, bool live,
                         const char **ret_names, size_t max)
{
    const struct domain *domain = domain_find(service->domains, guest_id);
    struct address *address = domain ? address_find(domain, ip) : NULL;
    uint64_t now = now_ms();
    size_t count = 0;

    if (address && address->n_facts > 1)
        qsort(address->facts, address->n_facts, sizeof(*address->facts), latest_first);
    for (size_t i = 0; address && i < address->n_facts && count < max; i++)
        if (!live || address->facts[i].until_ms > now)
            ret_names[count++] = address->facts[i].name;
    return count;
}

/* --- start-up --- */

static int loaded_add(void *userdata, const struct nat_opening *opening)
{
    struct domains *domains = userdata;
    struct loaded *loaded = list_grow(domains->loaded, domains->n_loaded, sizeof(*loaded));
    char *name;

    if (!loaded)
        return -ENOMEM;
    domains->loaded = loaded;
    name = strdup(opening->name);
    if (!name)
        return -ENOMEM;
    loaded[domains->n_loaded++] = (struct loaded){
        .guest_id = opening->policy_id,
        .ip = opening->ip,
        .fact = {name, now_ns(), now_ms() + opening->timeout_ms},
    };
    return 0;
}

int domains_load(struct service *service, struct error *error)
{
    return nat_openings_load(service->nat, loaded_add, service->domains, error);
}
