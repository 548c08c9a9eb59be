/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of guest.attach share. Private to service. */
#pragma once

#include "service/private.h"

/* A guest.attach on its way. What it points to is the caller's until `done` is called. */
struct attach {
    struct service *service;
    const struct peer *peer;
    struct guest_attach_params *params;
    const int *fds;
    size_t n_fds;
    service_attached_fn done;
    void *userdata;
    struct guest guest;
    struct guest_plan plan;
    int tap_fds[LIMIT_ENDPOINTS]; /* of the endpoints that are made; -1: none */
    uint64_t taken;               /* ethN that somebody else has in the namespace: bit N
                                     (link_guest_numbers) */
    bool again;                   /* it is the second try */
    struct attach *next;          /* in service->attaching */
};

/* --- attach_check.c: inside a transaction of the store; nothing is taken but the descriptor of the
 * namespace --- */
bool attach_needs_networks(const struct attach *attach);
int attach_copy_settings(struct attach *attach, struct error *error);
int attach_check_settings(struct attach *attach, struct error *error);
int attach_check_tap_name(struct attach *attach, struct error *error);
/* Fills an endpoint and its network for each that was asked for. */
int attach_add_endpoints(struct attach *attach, struct error *error);
int attach_open_namespace(struct attach *attach, struct error *error);

/* --- attach.c --- */
/* Addresses and MAC of an endpoint, from the store; inside its transaction. */
int attach_take_addresses(struct attach *attach, size_t index, struct error *error);

/* --- join.c --- */
/* The whole of it, on the loop: when it returns 0 the guest is on the networks. */
int attach_join(struct attach *attach, struct error *error);
