/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From a parsed request to the service and back. */
#pragma once

#include "proto/proto.h"
#include "service/service.h"

struct call;
typedef void (*call_answered_fn)(struct call *call);

struct call {
    struct service *service;
    const struct peer *peer;
    struct proto_request *request;
    const int *fds; /* that came with the line and belong to no earlier request of it */
    size_t n_fds;
    size_t n_fds_used;            /* of those this request's */
    struct promise earlier;       /* what was promised before it came */
    struct text *text;            /* where the answer goes; nothing for a notification */
    int ret_fds[LIMIT_ENDPOINTS]; /* descriptors to send with the answer, in order */
    size_t n_ret_fds;
    bool undurable;            /* what it did ends with the machine: no need to sync it */
    bool gave_nothing_back;    /* it has let go of no port */
    bool subscribe;            /* events.subscribe was called */
    const char *only_guest;    /* then: whose events; "": all. The request's. */
    bool deferred;             /* dispatch has returned without it */
    bool pending;              /* the answer is not there yet; the call must stay until it is */
    call_answered_fn answered; /* called then, but not within dispatch */
    void *userdata;
};

/* What a request has to wait for, so that the loop does not wait in its stead. */
enum call_wait {
    CALL_READY,
    CALL_UNTIL_SETTLED,  /* nothing is on its way (service_is_settled) */
    CALL_UNTIL_RELEASED, /* ports that were given back before it are free */
};
enum call_wait dispatch_wait(const struct call *call);
/* May urgent requests come in its middle, as far as they need not wait for it (dispatch_wait)? */
bool dispatch_yields(const struct call *call);
/* May it come in the middle of another? */
bool dispatch_is_urgent(const struct call *call);
/* Answers one request, refusals included: at once, or later where `pending` is true then. */
void dispatch(struct call *call);
