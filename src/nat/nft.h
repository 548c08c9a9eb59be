/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The nf_tables netlink protocol, below the ruleset: a socket, a growing transaction of messages,
 * and dumps. Knows no table of ours. */
#pragma once

#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

/* --- one transaction --- */

/* Messages are appended between nft_transaction_init and nft_socket_commit. Out of memory is
 * remembered and reported by the commit. */
struct nft_transaction {
    uint8_t family; /* NFPROTO_* of its messages */
    char *data;
    size_t length;
    size_t capacity;
    uint32_t messages;   /* batch begin and end are not counted */
    const char **labels; /* what each message is about, for the error text; static strings */
    size_t n_labels;
    bool failed; /* out of memory */
};

void nft_transaction_init(struct nft_transaction *transaction, uint8_t family);
void nft_transaction_deinit(struct nft_transaction *transaction);

/* Opens a message of NFT_MSG_* type with room for `room` bytes of attributes. NULL
 * when there is no memory; the message ends with nft_transaction_close, before which no other is
 * opened. */
struct nlmsghdr *nft_transaction_open(struct nft_transaction *transaction, uint16_t type,
                                      uint16_t flags, size_t room, const char *label);
void nft_transaction_close(struct nft_transaction *transaction, const struct nlmsghdr *message);

/* --- the socket --- */

struct nft_socket;

/* In the caller's network namespace. Reason permission_denied without CAP_NET_ADMIN is only seen at
 * the first commit. */
int nft_socket_open(struct nft_socket **ret_socket, struct error *error);
void nft_socket_close(struct nft_socket *socket);
uint32_t nft_socket_port(const struct nft_socket *socket); /* netlink port id */
/* From now on its dumps yield (base/yield.h): what comes in between uses another socket. */
void nft_socket_set_yielding(struct nft_socket *socket);
DEFINE_CLEANUP(struct nft_socket, nft_socket_close)

/* Sends the transaction and takes the kernel's verdict; atomic. Does not wait for anything but the
 * kernel (nf_tables works within sendmsg). Reason kernel with errno of the first refused message,
 * or permission_denied. An empty transaction is fine. */
int nft_socket_commit(struct nft_socket *socket, struct nft_transaction *transaction,
                      struct error *error);

/* A question of type NFT_MSG_GET* about a family: `build` (may be NULL) adds the attributes,
 * `parse` gets each answer and returns 0 or a negative errno. With `dump` false one object is asked
 * for. Returns 0; -ENOENT without text when the object (or its table) does not exist; other errors
 * with text. A dump that raced with a change is repeated by the caller: -EINTR without text. */
typedef void (*nft_build_fn)(struct nlmsghdr *message, void *userdata);
typedef int (*nft_parse_fn)(const struct nlmsghdr *message, void *userdata);
int nft_socket_get(struct nft_socket *socket, uint8_t family, uint16_t type, bool dump,
                   nft_build_fn build, nft_parse_fn parse, void *userdata, struct error *error);
