/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The life of the table.
 *
 *   absent ──────── rebuild ───────► owned, or plain where the kernel has no owner|persist
 * (before 6.9) owned, its owner is gone ─ adopt ─► owned     (contents stay: a restart changes
 * nothing) owned, its owner lives ──────────► busy plain ────────────────────────────► plain until
 * the next rebuild, which makes it owned if it can
 *
 * Never `owner` without `persist`: such a table goes with the daemon. A rebuild deletes and makes
 * the table within one transaction. The kernel registers the new chains' hooks before it takes the
 * old ones out, and at every instant exactly one of the two generations has rules; translations
 * live in connection tracking, not in rules, so that established flows don't notice. */
#include "nat/nat.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "nat/counter.h"
#include "nat/opening.h"
#include "nat/table.h"

#define REBUILD_TRIES 3

DEFINE_CLEANUP(struct nat, nat_close)

/* --- the table as it is --- */

static void table_name_build(struct nlmsghdr *message, void *userdata)
{
    (void)userdata;
    mnl_attr_put_strz(message, NFTA_TABLE_NAME, RULESET_TABLE);
}

static int comment_find(const struct nftnl_udata *attribute, void *userdata)
{
    const char **comment = userdata;
    const char *text = nftnl_udata_get(attribute);
    uint8_t length = nftnl_udata_len(attribute);

    if (nftnl_udata_type(attribute) == NFTNL_UDATA_TABLE_COMMENT && length > 0 &&
        text[length - 1] == '\0')
        *comment = text;
    return 0;
}

static void table_parse_tag(const struct nftnl_table *table, char tag[RULESET_TAG_MAX])
{
    uint32_t length = 0;
    const void *userdata = nftnl_table_get_data(table, NFTNL_TABLE_USERDATA, &length);
    const char *comment = NULL;

    if (userdata && nftnl_udata_parse(userdata, length, comment_find, &comment) >= 0 && comment)
        snprintf(tag, RULESET_TAG_MAX, "%s", comment);
}

static int table_parse(const struct nlmsghdr *message, void *userdata)
{
    struct nat_table_state *state = userdata;
    struct nftnl_table *table = nftnl_table_alloc();

    if (!table)
        return -ENOMEM;
    if (nftnl_table_nlmsg_parse(message, table) < 0) {
        nftnl_table_free(table);
        return -EPROTO;
    }
    state->exists = true;
    state->flags = nftnl_table_get_u32(table, NFTNL_TABLE_FLAGS);
    state->owner = nftnl_table_get_u32(table, NFTNL_TABLE_OWNER);
    table_parse_tag(table, state->tag);
    nftnl_table_free(table);
    return 0;
}

int nat_table_get(struct nat *nat, enum ruleset_table table, struct nat_table_state *ret_state,
                  struct error *error)
{
    struct nat_table_state state = {0};
    int result = nft_socket_get(nat->socket, ruleset_table_family(table), NFT_MSG_GETTABLE, false,
                                table_name_build, table_parse, &state, error);

    if (result < 0 && result != -ENOENT)
        return result;
    *ret_state = state;
    return 0;
}

/* All of them. */
static int tables_get(struct nat *nat, struct nat_table_state states[TABLE_COUNT_],
                      struct error *error)
{
    int result = 0;

    for (int i = 0; result == 0 && i < TABLE_COUNT_; i++)
        result = nat_table_get(nat, (enum ruleset_table)i, &states[i], error);
    return result;
}

/* --- opening --- */

/* "moatd (pid 812)": a process' first netlink socket has its pid as port. */
static void owner_describe(uint32_t port, char *text, size_t size)
{
    char path[64];
    char name[64] = "";

    snprintf(path, sizeof(path), "/proc/%u/comm", port);
    FILE *file = fopen(path, "re");
    if (file) {
        if (fgets(name, sizeof(name), file))
            name[strcspn(name, "\n")] = '\0';
        fclose(file);
    }
    if (name[0])
        snprintf(text, size, "%s (pid %u)", name, port);
    else
        snprintf(text, size, "another process (netlink port %u)", port);
}

static int table_busy(uint32_t owner, struct error *error)
{
    char text[128];

    owner_describe(owner, text, sizeof(text));
    return error_set_reason(
        error, REASON_BUSY,
        "the nftables table inet " RULESET_TABLE
        " belongs to %s: stop it, or start this one in another network namespace",
        text);
}

static void append_adoption(struct nft_transaction *transaction)
{
    struct nlmsghdr *message = nft_transaction_open(transaction, NFT_MSG_NEWTABLE, NLM_F_CREATE,
                                                    256, "the take-over of table " RULESET_TABLE);

    if (!message)
        return;
    mnl_attr_put_strz(message, NFTA_TABLE_NAME, RULESET_TABLE);
    mnl_attr_put_u32(message, NFTA_TABLE_FLAGS, htonl(TABLE_F_OWNER | TABLE_F_PERSIST));
    nft_transaction_close(transaction, message);
}

/* Takes over tables whose owner is gone, contents and all. */
static int table_adopt(struct nat *nat, struct error *error)
{
    struct nft_transaction transaction;

    nft_transaction_init(&transaction, NFPROTO_INET);
    for (int i = 0; i < TABLE_COUNT_; i++) {
        transaction.family = ruleset_table_family((enum ruleset_table)i);
        append_adoption(&transaction);
    }
    int result = nft_socket_commit(nat->socket, &transaction, error);
    nft_transaction_deinit(&transaction);
    nat->owned = result == 0;
    return result;
}

/* The netlink port of another owner of one of them, or 0. */
static uint32_t tables_owner(const struct nat_table_state states[TABLE_COUNT_])
{
    for (int i = 0; i < TABLE_COUNT_; i++)
        if (states[i].exists && states[i].flags & TABLE_F_OWNER)
            return states[i].owner;
    return 0;
}

static int table_open(struct nat *nat, struct error *error)
{
    struct nat_table_state states[TABLE_COUNT_];
    bool all = true;
    bool persist = true;
    int result = tables_get(nat, states, error);

    if (result < 0)
        return result;
    if (tables_owner(states))
        return table_busy(tables_owner(states), error);
    for (int i = 0; i < TABLE_COUNT_; i++) {
        all = all && states[i].exists;
        persist = persist && states[i].flags & TABLE_F_PERSIST;
    }
    if (!states[TABLE_INET].exists)
        return nat_rebuild(nat, NULL, error);
    if (!all || !persist) /* left as they are until the next rebuild */
        return 0;
    result = table_adopt(nat, error);
    if (result == 0)
        return 0;
    /* Somebody else was faster, or took it away. */
    struct error ignored = ERROR_INIT;
    if (tables_get(nat, states, &ignored) == 0 && tables_owner(states))
        return table_busy(tables_owner(states), error);
    return result;
}

/* The table's size is one for the machine, and may be read in any namespace. */
static uint32_t share_read(void)
{
    FILE *file = fopen("/proc/sys/net/netfilter/nf_conntrack_max", "re");
    unsigned size = 0;

    if (file) {
        if (fscanf(file, "%u", &size) != 1)
            size = 0;
        fclose(file);
    }
    size /= 8;
    return size == 0 || size > NAT_SHARE_MAX ? NAT_SHARE_MAX : size;
}

uint32_t nat_share_get(const struct nat *nat)
{
    return nat->share;
}

int nat_open(uint32_t group_base, uint32_t group_mask, struct nat **ret_nat, struct error *error)
{
    _cleanup_(nat_closep) struct nat *nat = calloc(1, sizeof(*nat));
    struct error fault = ERROR_INIT;

    if (!nat)
        return error_set(error, ENOMEM, "cannot open nftables");
    nat->groups = (struct ruleset_groups){group_base, group_mask};
    nat->share = share_read();
    /* Tests play a kernel without owned tables. */
    nat->owner_impossible = fault_point("nat.owner", &fault) < 0;
    nat->renews = opening_kernel_renews() && fault_point("nat.renew", &fault) == 0;
    int result = nft_socket_open(&nat->socket, error);
    if (result == 0)
        result = table_open(nat, error);
    if (result == 0)
        result = nft_socket_open(&nat->reader, error);
    if (result < 0)
        return result;
    nft_socket_set_yielding(nat->reader);
    *ret_nat = TAKE_PTR(nat);
    return 0;
}

void nat_close(struct nat *nat)
{
    if (!nat)
        return;
    nat_watch_stop(nat);
    nft_socket_close(nat->reader);
    nft_socket_close(nat->socket);
    free(nat);
}

bool nat_is_owned(const struct nat *nat)
{
    return nat->owned;
}

/* --- replacing and removing --- */

static int commit(struct nat *nat, struct nft_transaction *transaction, struct error *error)
{
    int result = nft_socket_commit(nat->socket, transaction, error);

    nft_transaction_deinit(transaction);
    return result;
}

/* Sets of ranges are empty for an instant (policy.c): endpoints with a policy wait so long, that
 * is, the connections which they open meanwhile do. */
static int rebuild_release(struct nat *nat, const struct nat_batch *batch, struct error *error)
{
    struct nft_transaction transaction;

    nft_transaction_init(&transaction, NFPROTO_INET);
    nat_batch_append_release(batch, &transaction);
    return commit(nat, &transaction, error);
}

static void append_table_deletions(struct nft_transaction *transaction,
                                   const struct nat_table_state states[TABLE_COUNT_])
{
    for (int i = 0; i < TABLE_COUNT_; i++) {
        transaction->family = ruleset_table_family((enum ruleset_table)i);
        if (states[i].exists)
            nft_transaction_delete_table(transaction, RULESET_TABLE);
    }
    transaction->family = NFPROTO_INET;
}

static int rebuild_once(struct nat *nat, const struct nat_table_state states[TABLE_COUNT_],
                        bool own, struct nat_batch *batch, struct error *error)
{
    struct nat_batch *constant = nat_batch_new_constant(nat);
    struct nft_transaction transaction;
    struct counters counters = {0};
    struct error ignored = ERROR_INIT;

    if (batch && counters_load(nat, &counters, &ignored) < 0)
        log_warning("what was dropped so far is counted from 0 again: %s", ignored.text);
    nft_transaction_init(&transaction, NFPROTO_INET);
    transaction.failed = !constant;
    append_table_deletions(&transaction, states);
    ruleset_append(&transaction, &nat->groups, own ? TABLE_F_OWNER | TABLE_F_PERSIST : 0);
    if (constant)
        nat_batch_append_elements(constant, false, NULL, &transaction);
    if (batch) {
        nat_batch_append_policies(batch, &transaction);
        nat_batch_append_elements(batch, true, &counters, &transaction);
    }
    nat_batch_free(constant);
    counters_deinit(&counters);
    int result = commit(nat, &transaction, error);
    if (result == 0)
        nat->owned = own;
    if (result == 0 && batch)
        result = rebuild_release(nat, batch, error);
    return result;
}

/* An older kernel refuses the flags: EINVAL or EOPNOTSUPP. Remembered only if a plain table is then
 * taken. */
static int rebuild_owned_or_plain(struct nat *nat,
                                  const struct nat_table_state states[TABLE_COUNT_],
                                  struct nat_batch *batch, struct error *error)
{
    int result;

    if (!nat->owner_impossible) {
        result = rebuild_once(nat, states, true, batch, error);
        if (result != -EINVAL && result != -EOPNOTSUPP)
            return result;
    }
    result = rebuild_once(nat, states, false, batch, error);
    if (result == 0 && !nat->owner_impossible) {
        nat->owner_impossible = true;
        log_info("this kernel has no owned nftables tables: the table is watched instead");
    }
    return result;
}

int nat_rebuild(struct nat *nat, struct nat_batch *batch, struct error *error)
{
    struct nat_table_state states[TABLE_COUNT_];
    int result = fault_point("nat.rebuild", error);

    /* A plain table may come or go between the question and the transaction. */
    for (int i = 0; i < REBUILD_TRIES && result == 0; i++) {
        result = tables_get(nat, states, error);
        if (result < 0)
            break;
        result = rebuild_owned_or_plain(nat, states, batch, error);
        if (result != -ENOENT && result != -EEXIST)
            return result;
        if (i + 1 < REBUILD_TRIES)
            result = 0;
    }
    return result;
}

int nat_remove_all(struct nat *nat, struct error *error)
{
    struct nat_table_state states[TABLE_COUNT_];
    struct nft_transaction transaction;
    int result = tables_get(nat, states, error);

    if (result < 0)
        return result;
    nft_transaction_init(&transaction, NFPROTO_INET);
    append_table_deletions(&transaction, states);
    result = commit(nat, &transaction, error);
    if (result == -ENOENT)
        result = 0;
    if (result == 0)
        nat->owned = false;
    return result;
}
