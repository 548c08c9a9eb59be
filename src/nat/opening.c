/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Openings are elements of hash sets with a timeout; the kernel keeps the name with each, as its
 * comment, so that a later moatd knows why it is there.
 *
 * From Linux 6.12 on, an element that is added again gets the new timeout. Before, it is deleted
 * and added in one transaction, which the kernel refuses when the element has gone just then: the
 * transaction is made again without deletions (batch.c). */
#include "nat/opening.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "nat/table.h"

#define NAME_MAX_BYTES 254 /* with the NUL */
#define OPENING_ROOM 384
#define OPENINGS_ROOM 60000 /* one netlink attribute has 16 bits of length */
#define LOAD_TRIES 5

bool opening_kernel_renews(void)
{
    struct utsname name;
    unsigned major;
    unsigned minor;

    if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2)
        return false;
    return major > 6 || (major == 6 && minor >= 12);
}

/* --- messages --- */

static void put_name(struct nlmsghdr *message, const char *name)
{
    uint8_t userdata[2 + NAME_MAX_BYTES];
    size_t length = strnlen(name, NAME_MAX_BYTES - 1) + 1;

    /* One attribute of libnftnl's: type, length, text with its NUL. */
    userdata[0] = NFTNL_UDATA_SET_ELEM_COMMENT;
    userdata[1] = (uint8_t)length;
    memcpy(userdata + 2, name, length - 1);
    userdata[1 + length] = '\0';
    mnl_attr_put(message, NFTA_SET_ELEM_USERDATA, 2 + length, userdata);
}

static void put_opening(struct nlmsghdr *message, const struct nat_opening *opening, bool add)
{
    struct nlattr *nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
    struct nlattr *key = mnl_attr_nest_start(message, NFTA_SET_ELEM_KEY);

    mnl_attr_put(message, NFTA_DATA_VALUE, ip_bits(opening->ip.family) / 8, opening->ip.bytes);
    mnl_attr_nest_end(message, key);
    if (add) {
        mnl_attr_put_u64(message, NFTA_SET_ELEM_TIMEOUT, htobe64(opening->timeout_ms));
        /* A timeout that is the same again renews nothing by itself. */
        mnl_attr_put_u64(message, NFTA_SET_ELEM_EXPIRATION, htobe64(opening->timeout_ms));
        put_name(message, opening->name);
    }
    mnl_attr_nest_end(message, nest);
}

static int order_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

/* Those of one set stand together. */
static int set_order(const void *a, const void *b)
{
    const struct nat_opening *one = a;
    const struct nat_opening *other = b;
    int order = order_u64((uint64_t)one->policy_id, (uint64_t)other->policy_id);

    if (order == 0)
        order = order_u64(one->policy_version, other->policy_version);
    if (order == 0)
        order = order_u64(one->service, other->service);
    if (order == 0)
        order = one->closes - other->closes;
    return order == 0 ? one->ip.family - other->ip.family : order;
}

static void set_name(const struct nat_opening *opening, char ret_name[POLICY_NAME_MAX])
{
    policy_openings_name(opening->policy_id, opening->policy_version, opening->closes,
                         opening->ip.family, opening->service, ret_name);
}

/* One message with as many as belong to one set and fit; deletions are of those that renew. Returns
 * how many. */
static size_t append_some(const struct nat_opening *openings, size_t count, bool add,
                          struct nft_transaction *transaction)
{
    const struct nat_opening *first = &openings[0];
    char set[POLICY_NAME_MAX];
    size_t run = 1;

    if (!add && !first->renews)
        return 1;
    while (run < count && run < OPENINGS_ROOM / OPENING_ROOM &&
           set_order(first, &openings[run]) == 0 && (add || openings[run].renews))
        run++;
    set_name(first, set);
    struct nlmsghdr *message = nft_transaction_open(
        transaction, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, add ? NLM_F_CREATE : 0,
        256 + run * OPENING_ROOM, "an address given by name");
    if (!message)
        return run;
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set);
    struct nlattr *list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    for (size_t i = 0; i < run; i++)
        put_opening(message, &openings[i], add);
    mnl_attr_nest_end(message, list);
    nft_transaction_close(transaction, message);
    return run;
}

bool openings_renew(const struct nat_batch *batch)
{
    for (size_t i = 0; i < batch->n_openings; i++)
        if (batch->openings[i].renews)
            return true;
    return false;
}

void openings_append(struct nat_batch *batch, bool delete_first,
                     struct nft_transaction *transaction)
{
    if (batch->n_openings > 1)
        qsort(batch->openings, batch->n_openings, sizeof(*batch->openings), set_order);
    for (size_t at = 0; delete_first && at < batch->n_openings;)
        at += append_some(&batch->openings[at], batch->n_openings - at, false, transaction);
    for (size_t at = 0; at < batch->n_openings;)
        at += append_some(&batch->openings[at], batch->n_openings - at, true, transaction);
}

void nat_batch_opening(struct nat_batch *batch, const struct nat_opening *opening)
{
    struct nat_opening *openings = list_grow(batch->openings, batch->n_openings, sizeof(*openings));

    if (!openings) {
        batch->failed = true;
        return;
    }
    batch->openings = openings;
    openings[batch->n_openings++] = *opening;
}

/* --- reading --- */

struct load {
    struct strings sets;
    struct nat_opening opening; /* of the set at hand */
    char name[NAME_MAX_BYTES];
    nat_opening_fn fn;
    void *userdata;
};

static int set_parse(const struct nlmsghdr *message, void *userdata)
{
    struct load *load = userdata;
    struct nlattr *attribute;
    struct nat_opening opening;

    mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(attribute) != NFTA_SET_NAME ||
            mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) < 0 ||
            !policy_openings_read(mnl_attr_get_str(attribute), &opening))
            continue;
        if (strings_add(&load->sets, mnl_attr_get_str(attribute)) < 0)
            return -ENOMEM;
    }
    return 0;
}

static void sets_build(struct nlmsghdr *message, void *userdata)
{
    (void)userdata;
    mnl_attr_put_strz(message, NFTA_SET_TABLE, RULESET_TABLE);
}

static void elements_build(struct nlmsghdr *message, void *userdata)
{
    const struct load *load = userdata;
    const struct nat_opening *opening = &load->opening;
    char set[POLICY_NAME_MAX];

    set_name(opening, set);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set);
}

static bool key_read(const struct nlattr *nest, struct nat_opening *opening)
{
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, nest)
    {
        if (mnl_attr_get_type(attribute) != NFTA_DATA_VALUE ||
            mnl_attr_get_payload_len(attribute) != ip_bits(opening->ip.family) / 8)
            continue;
        opening->ip = ip_from_bytes(opening->ip.family, mnl_attr_get_payload(attribute));
        return true;
    }
    return false;
}

static void name_read(const struct nlattr *attribute, char name[NAME_MAX_BYTES])
{
    const uint8_t *bytes = mnl_attr_get_payload(attribute);
    size_t length = mnl_attr_get_payload_len(attribute);

    if (length < 3 || bytes[0] != NFTNL_UDATA_SET_ELEM_COMMENT || bytes[1] != length - 2 ||
        bytes[1] > NAME_MAX_BYTES || bytes[length - 1] != '\0')
        return;
    memcpy(name, bytes + 2, length - 2);
}

static int element_read(struct load *load, const struct nlattr *nest)
{
    struct nat_opening *opening = &load->opening;
    struct nlattr *attribute;
    bool key = false;

    opening->timeout_ms = 0;
    load->name[0] = '\0';
    mnl_attr_for_each_nested(attribute, nest)
    {
        if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_KEY)
            key = key_read(attribute, opening);
        else if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_EXPIRATION &&
                 mnl_attr_get_payload_len(attribute) == sizeof(uint64_t))
            opening->timeout_ms = be64toh(mnl_attr_get_u64(attribute));
        else if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_USERDATA)
            name_read(attribute, load->name);
    }
    if (!key || opening->timeout_ms == 0 || !load->name[0])
        return 0;
    opening->name = load->name;
    return load->fn(load->userdata, opening);
}

static int elements_parse(const struct nlmsghdr *message, void *userdata)
{
    struct nlattr *attribute;
    struct nlattr *nest;
    int result = 0;

    mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(attribute) != NFTA_SET_ELEM_LIST_ELEMENTS)
            continue;
        mnl_attr_for_each_nested(nest, attribute)
        {
            if (result == 0)
                result = element_read(userdata, nest);
        }
    }
    return result;
}

/* Elements may be given twice when the kernel grows the set meanwhile: the caller does not mind. */
static int load_set(struct nat *nat, struct load *load, const char *set, struct error *error)
{
    struct nat_opening *opening = &load->opening;
    int result = -EINTR;

    if (!policy_openings_read(set, opening))
        return 0;
    for (int i = 0; i < LOAD_TRIES && result == -EINTR; i++)
        result = nft_socket_get(nat->socket, NFPROTO_INET, NFT_MSG_GETSETELEM, true, elements_build,
                                elements_parse, load, error);
    return result == -ENOENT || result == -EINTR ? 0 : result;
}

int nat_openings_load(struct nat *nat, nat_opening_fn fn, void *userdata, struct error *error)
{
    struct load load = {.fn = fn, .userdata = userdata};
    int result = nft_socket_get(nat->socket, NFPROTO_INET, NFT_MSG_GETSET, true, sets_build,
                                set_parse, &load, error);

    if (result == -ENOENT || result == -EINTR)
        result = 0;
    for (size_t i = 0; result == 0 && i < load.sets.count; i++)
        result = load_set(nat, &load, load.sets.items[i], error);
    strings_deinit(&load.sets);
    return result;
}

/* --- verifying --- */

#define TOLERANCE_MS 2000 /* what ends within it may be there or not */
#define PAUSE_MAX_MS 8

struct openings {
    struct nat_opening *items;
    size_t count;
};

static int openings_add(void *userdata, const struct nat_opening *opening)
{
    struct openings *openings = userdata;
    struct nat_opening *items = list_grow(openings->items, openings->count, sizeof(*items));

    if (!items)
        return -ENOMEM;
    openings->items = items;
    items[openings->count] = *opening;
    items[openings->count++].name = NULL;
    return 0;
}

static int opening_order(const void *a, const void *b)
{
    const struct nat_opening *one = a;
    const struct nat_opening *other = b;
    int order = ip_compare(&one->ip, &other->ip);

    if (order != 0)
        return order;
    if (one->service != other->service)
        return one->service < other->service ? -1 : 1;
    return one->closes - other->closes;
}

static void openings_sort(struct openings *openings)
{
    if (openings->count > 1)
        qsort(openings->items, openings->count, sizeof(*openings->items), opening_order);
}

/* All of `some` that last are among the others; both sorted. */
static bool openings_are_among(const struct openings *some, const struct openings *others)
{
    size_t at = 0;

    for (size_t i = 0; i < some->count; i++) {
        while (at < others->count && opening_order(&others->items[at], &some->items[i]) < 0)
            at++;
        if ((at == others->count || opening_order(&others->items[at], &some->items[i]) != 0) &&
            some->items[i].timeout_ms > TOLERANCE_MS)
            return false;
    }
    return true;
}

static int openings_find(struct nat *nat, const struct policy_object *object,
                         struct openings *ret_found, struct error *error)
{
    struct load load = {.fn = openings_add, .userdata = ret_found};
    char text[POLICY_NAME_MAX];
    enum policy_set_kind kind;
    const char *set;
    int result = 0;

    for (size_t i = 0; result == 0 && (set = policy_set_get(object, i, text, &kind)); i++)
        if (kind == POLICY_SET_OPENINGS)
            result = load_set(nat, &load, set, error);
    openings_sort(ret_found);
    return result;
}

static int openings_wanted(const struct nat_batch *batch, const struct policy_object *object,
                           struct openings *ret_wanted, struct error *error)
{
    for (size_t i = 0; i < batch->n_openings; i++)
        if (batch->openings[i].policy_id == object->id &&
            batch->openings[i].policy_version == object->version &&
            openings_add(ret_wanted, &batch->openings[i]) < 0)
            return error_set(error, ENOMEM, "cannot verify nftables");
    openings_sort(ret_wanted);
    return 0;
}

/* A dump that misses some is repeated: the kernel may be growing the set (verify.c). */
int openings_verify(struct nat *nat, const struct nat_batch *batch,
                    const struct policy_object *object, bool *ret_same, struct error *error)
{
    struct openings wanted = {0};
    bool same = object->services.n_opens == 0 && object->services.n_closes == 0;
    int result = same ? 0 : openings_wanted(batch, object, &wanted, error);

    for (long pause_ms = 1; result == 0 && !same && pause_ms <= PAUSE_MAX_MS; pause_ms *= 2) {
        struct openings found = {0};

        if (pause_ms > 1)
            nanosleep(&(struct timespec){.tv_nsec = pause_ms * 1000000}, NULL);
        result = openings_find(nat, object, &found, error);
        same = result == 0 && openings_are_among(&wanted, &found) &&
               openings_are_among(&found, &wanted);
        free(found.items);
    }
    free(wanted.items);
    if (result == 0)
        *ret_same = same;
    return result;
}
