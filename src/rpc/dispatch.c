/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "rpc/dispatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"

/* What a handler gives back, in the shape that the method's row of the table says. */
struct result {
    union {
        struct network network;
        struct guest guest;
        struct policy_result policy;
        struct policy_test_result verdict;
        struct limits limits;
        struct learn_result learned;
        struct status_result status;
        struct dns_log_result dns_log;
        struct strings strings;
    } value;
    void *items; /* RESULT_LIST: malloc'ed */
    size_t count;
};

struct handler {
    int (*call)(struct call *call, struct result *result, struct error *error);
    bool (*settles)(const struct call *call);     /* must nothing be on its way? NULL: yes */
    bool (*wants_ports)(const struct call *call); /* NULL: no */
    bool later;  /* answers by itself what it does not refuse, maybe later */
    bool yields; /* it may be long, and is prepared for detaches in its middle */
    bool reads;  /* it changes nothing */
    bool keeps;  /* it gives no ports back */
    bool urgent; /* may come in the middle of another */
};

/* --- answers --- */

static void result_deinit(const struct proto_method *method, struct result *result)
{
    const struct proto_object *object = method->result;

    if (method->result_kind == RESULT_OBJECT)
        object->deinit(&result->value);
    else if (method->result_kind == RESULT_STRINGS)
        strings_deinit(&result->value.strings);
    for (size_t i = 0; i < result->count; i++)
        object->deinit((char *)result->items + i * object->size);
    free(result->items);
}

static void answer_error(struct call *call, int code, const struct error *error)
{
    if (call->request->id)
        proto_error_encode(call->text, call->request->id, code, error);
}

static void answer_failure(struct call *call, const struct error *error)
{
    if (error->kind == ERROR_INTERNAL)
        log_warning("%s: %s", call->request->method->name, error->text);
    answer_error(call, proto_error_code(error), error);
}

/* Takes the result. */
static void answer_result(struct call *call, struct result *result)
{
    const struct proto_method *method = call->request->method;

    if (call->request->id)
        proto_result_encode(call->text, call->request->id, method,
                            method->result_kind == RESULT_LIST ? result->items
                                                               : (void *)&result->value,
                            result->count);
    result_deinit(method, result);
}

/* --- methods --- */

#define PARAMS (&call->request->params)

static int network_create(struct call *call, struct result *result, struct error *error)
{
    return service_network_create(call->service, &PARAMS->network_create, &result->value.network,
                                  error);
}

static int network_list(struct call *call, struct result *result, struct error *error)
{
    return service_network_list(call->service, (struct network **)&result->items, &result->count,
                                error);
}

static int network_get(struct call *call, struct result *result, struct error *error)
{
    return service_network_get(call->service, PARAMS->name.name, &result->value.network, error);
}

static int network_remove(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_network_remove(call->service, &PARAMS->network_remove, error);
}

static int network_prune(struct call *call, struct result *result, struct error *error)
{
    return service_network_prune(call->service, &result->value.strings, error);
}

static int network_allow(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_network_allow(call->service, &PARAMS->passage, error);
}

static int network_deny(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_network_deny(call->service, &PARAMS->passage, error);
}

static void answered(struct call *call)
{
    call->pending = false;
    if (call->deferred)
        call->answered(call);
}

static void on_attached(void *userdata, struct guest *guest, const int *fds, size_t n_fds,
                        struct error *error)
{
    struct call *call = userdata;
    struct result result = {0};

    if (guest) {
        call->gave_nothing_back = true;
        call->undurable = guest->ephemeral && guest->kind == KIND_NETNS;
        result.value.guest = *guest;
        memcpy(call->ret_fds, fds, n_fds * sizeof(*fds));
        call->n_ret_fds = n_fds;
        answer_result(call, &result);
    } else {
        answer_failure(call, error);
    }
    answered(call);
}

static bool attach_settles(const struct call *call)
{
    return service_attach_settles(&PARAMS->guest_attach);
}

static bool attach_wants_ports(const struct call *call)
{
    return PARAMS->guest_attach.ports.count;
}

static int guest_attach(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    call->pending = true;
    call->n_fds_used = PARAMS->guest_attach.netns_fd && call->n_fds ? 1 : 0;
    return service_guest_attach(call->service, call->peer, &PARAMS->guest_attach, call->fds,
                                call->n_fds, on_attached, call, error);
}

static void on_detached(void *userdata, int r, enum guest_kind of, struct error *error)
{
    struct call *call = userdata;
    struct result result = {0};

    call->undurable = of == KIND_NETNS;
    if (r < 0)
        answer_failure(call, error);
    else
        answer_result(call, &result);
    answered(call);
}

static bool detach_settles(const struct call *call)
{
    return service_detach_settles(call->service, &PARAMS->guest_detach);
}

static int guest_detach(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    call->pending = true;
    return service_guest_detach(call->service, &PARAMS->guest_detach, on_detached, call, error);
}

static int guest_list(struct call *call, struct result *result, struct error *error)
{
    return service_guest_list(call->service, (struct guest **)&result->items, &result->count,
                              error);
}

static int guest_get(struct call *call, struct result *result, struct error *error)
{
    return service_guest_get(call->service, PARAMS->name.name, &result->value.guest, error);
}

static bool port_add_wants_ports(const struct call *call)
{
    (void)call;
    return true;
}

static int port_add(struct call *call, struct result *result, struct error *error)
{
    return service_port_add(call->service, &PARAMS->port, (struct port **)&result->items,
                            &result->count, error);
}

static int port_remove(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_port_remove(call->service, &PARAMS->port, error);
}

static int port_list(struct call *call, struct result *result, struct error *error)
{
    return service_port_list(call->service, &PARAMS->guest, (struct port **)&result->items,
                             &result->count, error);
}

static int policy_get(struct call *call, struct result *result, struct error *error)
{
    return service_policy_get(call->service, &PARAMS->guest, &result->value.policy, error);
}

static int policy_set(struct call *call, struct result *result, struct error *error)
{
    return service_policy_set(call->service, &PARAMS->policy_set, &result->value.policy, error);
}

static int policy_test(struct call *call, struct result *result, struct error *error)
{
    return service_policy_test(call->service, &PARAMS->policy_test, &result->value.verdict, error);
}

static int limit_get(struct call *call, struct result *result, struct error *error)
{
    return service_limit_get(call->service, &PARAMS->guest, &result->value.limits, error);
}

static int limit_set(struct call *call, struct result *result, struct error *error)
{
    return service_limit_set(call->service, &PARAMS->limit_set, &result->value.limits, error);
}

static int policy_learn(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_policy_learn(call->service, call->peer, &PARAMS->learn, error);
}

static int policy_learned(struct call *call, struct result *result, struct error *error)
{
    return service_policy_learned(call->service, &PARAMS->guest, &result->value.learned, error);
}

static int localhost_set(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_localhost_set(call->service, &PARAMS->localhost, error);
}

static int dns_list(struct call *call, struct result *result, struct error *error)
{
    return service_dns_list(call->service, &PARAMS->dns, (struct record_result **)&result->items,
                            &result->count, error);
}

static int dns_add(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_dns_add(call->service, &PARAMS->dns, error);
}

static int dns_remove(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_dns_remove(call->service, &PARAMS->dns, error);
}

static int dns_flush(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_dns_flush(call->service, &PARAMS->dns_flush, error);
}

static int dns_log(struct call *call, struct result *result, struct error *error)
{
    return service_dns_log(call->service, &PARAMS->dns_log, &result->value.dns_log, error);
}

static int events_subscribe(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    (void)error;
    call->subscribe = true;
    call->only_guest = PARAMS->guest.guest;
    return 0;
}

static int system_status(struct call *call, struct result *result, struct error *error)
{
    return service_status(call->service, &result->value.status, error);
}

static int system_doctor(struct call *call, struct result *result, struct error *error)
{
    return service_doctor(call->service, (struct check_result **)&result->items, &result->count,
                          error);
}

static int system_teardown(struct call *call, struct result *result, struct error *error)
{
    (void)result;
    return service_teardown(call->service, error);
}

static const struct handler handlers[] = {
    [METHOD_NETWORK_CREATE] = {.call = network_create, .yields = true, .keeps = true},
    [METHOD_NETWORK_LIST] = {.call = network_list, .yields = true, .reads = true},
    [METHOD_NETWORK_GET] = {.call = network_get},
    [METHOD_NETWORK_REMOVE] = {.call = network_remove, .yields = true},
    [METHOD_NETWORK_PRUNE] = {.call = network_prune, .yields = true},
    [METHOD_NETWORK_ALLOW] = {.call = network_allow},
    [METHOD_NETWORK_DENY] = {.call = network_deny},
    [METHOD_GUEST_ATTACH] = {.call = guest_attach,
                             .settles = attach_settles,
                             .wants_ports = attach_wants_ports,
                             .later = true,
                             .yields = true},
    [METHOD_GUEST_DETACH] = {.call = guest_detach,
                             .settles = detach_settles,
                             .later = true,
                             .urgent = true},
    [METHOD_GUEST_LIST] = {.call = guest_list, .yields = true, .reads = true},
    [METHOD_GUEST_GET] = {.call = guest_get},
    [METHOD_PORT_ADD] = {.call = port_add, .wants_ports = port_add_wants_ports, .yields = true},
    [METHOD_PORT_REMOVE] = {.call = port_remove, .yields = true},
    [METHOD_PORT_LIST] = {.call = port_list, .yields = true, .reads = true},
    [METHOD_POLICY_GET] = {.call = policy_get},
    [METHOD_POLICY_SET] = {.call = policy_set, .yields = true, .keeps = true},
    [METHOD_POLICY_TEST] = {.call = policy_test},
    [METHOD_LIMIT_GET] = {.call = limit_get},
    [METHOD_LIMIT_SET] = {.call = limit_set},
    [METHOD_POLICY_LEARN] = {.call = policy_learn},
    [METHOD_POLICY_LEARNED] = {.call = policy_learned},
    [METHOD_LOCALHOST_SET] = {.call = localhost_set},
    [METHOD_DNS_LIST] = {.call = dns_list, .yields = true, .reads = true},
    [METHOD_DNS_ADD] = {.call = dns_add},
    [METHOD_DNS_REMOVE] = {.call = dns_remove},
    [METHOD_DNS_FLUSH] = {.call = dns_flush},
    [METHOD_DNS_LOG] = {.call = dns_log},
    [METHOD_EVENTS_SUBSCRIBE] = {.call = events_subscribe},
    [METHOD_SYSTEM_STATUS] = {.call = system_status},
    [METHOD_SYSTEM_DOCTOR] = {.call = system_doctor, .yields = true, .reads = true},
    [METHOD_SYSTEM_TEARDOWN] = {.call = system_teardown},
};

static_assert(ARRAY_SIZE(handlers) == METHOD_COUNT_, "each method has a handler");

static bool settles(const struct call *call)
{
    const struct handler *handler = &handlers[call->request->method->id];

    return !handler->settles || handler->settles(call);
}

enum call_wait dispatch_wait(const struct call *call)
{
    const struct handler *handler;

    if (call->request->code || service_is_torn_down(call->service))
        return CALL_READY; /* to be refused */
    handler = &handlers[call->request->method->id];
    if (service_is_working(call->service) && !handler->urgent)
        return CALL_UNTIL_SETTLED;
    if (settles(call) && !service_is_settled(call->service))
        return CALL_UNTIL_SETTLED;
    if (handler->wants_ports && handler->wants_ports(call) &&
        !service_is_released(call->service, &call->earlier))
        return CALL_UNTIL_RELEASED;
    return CALL_READY;
}

bool dispatch_yields(const struct call *call)
{
    return !call->request->code && handlers[call->request->method->id].yields;
}

bool dispatch_is_urgent(const struct call *call)
{
    return !call->request->code && handlers[call->request->method->id].urgent;
}

void dispatch(struct call *call)
{
    const struct proto_method *method = call->request->method;
    struct result result = {0};
    struct error error = ERROR_INIT;
    int r;

    call->n_ret_fds = 0;
    call->pending = call->deferred = false;
    if (call->request->code) {
        answer_error(call, call->request->code, &call->request->error);
        return;
    }
    if (settles(call))
        service_settle(call->service);
    if (service_is_torn_down(call->service)) {
        error_set_reason(&error, REASON_BUSY, "moatd was torn down and is ending; start it again");
        answer_error(call, PROTO_REFUSED, &error);
        return;
    }
    /* What others did in its middle is promised to them. */
    call->undurable = handlers[method->id].reads;
    call->gave_nothing_back = handlers[method->id].reads || handlers[method->id].keeps;
    r = handlers[method->id].call(call, &result, &error);
    if (r < 0) {
        call->pending = false;
        answer_failure(call, &error);
    } else if (!handlers[method->id].later) {
        answer_result(call, &result);
    }
    call->deferred = call->pending;
}
