/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The messages of moatd (dns_message.h), acted upon: zone, upstream servers and sockets. */
#pragma once

#include "worker/dns_message.h"
#include "worker/dns_service.h"
#include "worker/dns_tcp.h"
#include "worker/dns_udp.h"
#include "worker/runtime.h"

struct dns_control_config {
    struct loop *loop;
    uint16_t port; /* of upstream servers: DNS_PORT */
    /* Reads what moatd has sent, and calls dns_control_message for each; cheap when nothing has
     * come. */
    void (*receive)(void *userdata);
    /* Waits a little for more to come: moatd has said (by the page) that it will. */
    void (*wait)(void *userdata);
    /* Called for each batch of queries, before it is answered. */
    void (*active)(void *userdata);
    /* Sends a message to moatd: 0, or negative when it can't be taken now. */
    int (*send)(void *userdata, uint16_t type, const void *payload, size_t length);
    void *userdata;
};

struct dns_control;

struct dns_control *dns_control_new(const struct dns_control_config *config); /* NULL: no memory */
void dns_control_free(struct dns_control *control);
/* One message; a descriptor that is kept is taken out of fds (-1 stands there then). What is
 * malformed is logged and left. */
void dns_control_message(struct dns_control *control, uint16_t type, const void *payload,
                         size_t length, int *fds, size_t n_fds);
/* Are there sockets that serve clients? After drain: is anything still due? */
bool dns_control_serves(const struct dns_control *control);
/* Adds every socket to the handover. */
void dns_control_hand_over(const struct dns_control *control, struct worker_handover *handover);
/* Takes nothing new; what is due is finished. */
void dns_control_drain(struct dns_control *control);
void dns_control_stats(const struct dns_control *control, struct dns_stats_message *ret_stats);
