/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Passages: what guests of one network may open connections to in another. What is open from one to
 * the other is a set of ports: allowing adds to it, denying takes from it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "service/private.h"

static void plan_passage(const struct passage *passage, struct nat_passage *ret_passage)
{
    *ret_passage = (struct nat_passage){
        .from_group = LINK_GROUP_OF(passage->from_id),
        .to_group = LINK_GROUP_OF(passage->to_id),
        .span = passage->span,
    };
}

/* --- a request --- */

struct request {
    struct network from;
    struct network to;
    struct port_spans asked;  /* what is to be opened or closed */
    struct port_spans before; /* what is open */
    struct port_spans after;
};

static void request_deinit(struct request *request)
{
    network_deinit(&request->from);
    network_deinit(&request->to);
    spans_deinit(&request->asked);
    spans_deinit(&request->before);
    spans_deinit(&request->after);
}

static int parse_ports(const struct strings *ports, struct port_spans *ret_spans,
                       struct error *error)
{
    static const struct port_span everything = {0};
    char field[32];
    struct port_span span;

    if (ports->count == 0 && spans_add(ret_spans, &everything) < 0)
        return error_set(error, ENOMEM, "passage");
    for (size_t i = 0; i < ports->count; i++) {
        int r;

        snprintf(field, sizeof(field), "ports[%zu]", i);
        r = span_parse(ports->items[i], field, &span, error);
        if (r < 0)
            return r;
        if (spans_add(ret_spans, &span) < 0)
            return error_set(error, ENOMEM, "passage");
    }
    return 0;
}

static int request_load(struct service *service, const struct passage_params *params,
                        struct request *request, struct error *error)
{
    int r = network_find(service, params->from, &request->from, error);

    if (r >= 0)
        r = network_find(service, params->to, &request->to, error);
    if (r >= 0 && request->from.id == request->to.id)
        r = error_set_field(error, "to",
                            "to: \"%s\" is the same network; a passage leads to another one",
                            params->to);
    if (r >= 0)
        r = parse_ports(&params->ports, &request->asked, error);
    if (r >= 0)
        r = store_passage_get(service->store, request->from.id, request->to.id, &request->before,
                              error);
    if (r >= 0 && spans_copy(&request->before, &request->after) < 0)
        r = error_set(error, ENOMEM, "passage");
    return r;
}

/* "5432/tcp, 8000-8010/udp", or "everything"; cut short where there are many. */
static const char *spans_describe(const struct port_spans *spans, char text[160])
{
    char port[SPAN_TEXT_MAX];
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < spans->count; i++) {
        if (span_is_everything(&spans->items[i]))
            return "everything";
        if (length > 120) {
            snprintf(text + length, 160 - length, ", …");
            break;
        }
        length += (size_t)snprintf(text + length, 160 - length, "%s%s", i ? ", " : "",
                                   span_format(&spans->items[i], port));
    }
    return text;
}

/* --- the kernel and the store --- */

/* Deletes what is in `before` alone and adds what is in `after` alone. */
static int commit_change(struct service *service, const struct request *request,
                         struct error *error)
{
    struct nat_batch *batch = nat_batch_new(service->nat);
    const struct port_spans *sets[] = {&request->before, &request->after};
    int r;

    if (!batch)
        return error_set(error, ENOMEM, "rules");
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < sets[i]->count; j++) {
            const struct nat_passage passage = {LINK_GROUP_OF(request->from.id),
                                                LINK_GROUP_OF(request->to.id), sets[i]->items[j]};

            if (!spans_have(sets[1 - i], &passage.span))
                nat_batch_passage(batch, &passage, i == 1);
        }
    r = nat_batch_commit(batch, error);
    nat_batch_free(batch);
    return r;
}

static int write_spans(struct service *service, const struct request *request,
                       const struct port_spans *spans, struct error *error)
{
    int r = store_begin(service->store, error);

    if (r >= 0)
        r = store_passage_set(service->store, request->from.id, request->to.id, spans, error);
    if (r >= 0)
        r = fault_point("store.commit", error);
    if (r >= 0)
        r = store_commit(service->store, error);
    if (r < 0)
        store_rollback(service->store);
    return r;
}

static int apply_change(struct service *service, const struct request *request, struct error *error)
{
    struct error undo = ERROR_INIT;
    int r = write_spans(service, request, &request->after, error);

    if (r < 0)
        return r;
    r = commit_change(service, request, error);
    if (r < 0 && write_spans(service, request, &request->before, &undo) < 0)
        log_error("networks %s and %s: %s", request->from.name, request->to.name, undo.text);
    if (r < 0)
        reconcile_schedule(service);
    return r;
}

/* --- allowing --- */

static bool share_a_family(const struct network *a, const struct network *b)
{
    return (cidr_is_set(&a->subnet) && cidr_is_set(&b->subnet)) ||
           (cidr_is_set(&a->subnet6) && cidr_is_set(&b->subnet6));
}

static int check_networks(const struct request *request, struct error *error)
{
    if (request->from.internal)
        return error_set_reason(error, REASON_NOT_SUPPORTED,
                                "network \"%s\" is internal: its guests have no way out of it; "
                                "attach them to \"%s\" too",
                                request->from.name, request->to.name);
    if (!share_a_family(&request->from, &request->to))
        return error_set_reason(error, REASON_NOT_SUPPORTED,
                                "networks \"%s\" and \"%s\" have no address family in common",
                                request->from.name, request->to.name);
    return 0;
}

static int check_count(struct service *service, const struct request *request, struct error *error)
{
    uint64_t count = 0;
    int r = store_passage_count(service->store, &count, error);

    if (r >= 0 && request->after.count > request->before.count &&
        count + request->after.count - request->before.count > LIMIT_PASSAGES)
        return error_set_reason(error, REASON_QUOTA,
                                "there are %llu port ranges open between networks, and at most %d "
                                "can be; close some with `moat net deny`, or allow wider ones",
                                (unsigned long long)count, LIMIT_PASSAGES);
    return r;
}

static int add_asked(struct request *request, struct error *error)
{
    for (size_t i = 0; i < request->asked.count; i++)
        if (spans_add(&request->after, &request->asked.items[i]) < 0)
            return error_set(error, ENOMEM, "passage");
    return 0;
}

static bool asked_is_open(const struct request *request)
{
    for (size_t i = 0; i < request->asked.count; i++)
        if (!spans_contains(&request->before, &request->asked.items[i]))
            return false;
    return true;
}

static int allow(struct service *service, struct request *request, struct error *error)
{
    char text[160];
    int r = check_networks(request, error);

    if (r < 0 || asked_is_open(request))
        return r;
    r = add_asked(request, error);
    if (r >= 0)
        r = check_count(service, request, error);
    if (r >= 0)
        r = apply_change(service, request, error);
    if (r >= 0)
        event_emit(service, "network.allowed", request->from.name, NULL, "to %s: %s",
                   request->to.name, spans_describe(&request->asked, text));
    return r;
}

int service_network_allow(struct service *service, const struct passage_params *params,
                          struct error *error)
{
    _cleanup_(request_deinit) struct request request = {0};
    int r = request_load(service, params, &request, error);

    return r < 0 ? r : allow(service, &request, error);
}

/* --- denying --- */

static int check_open(const struct request *request, struct error *error)
{
    char port[SPAN_TEXT_MAX];
    char text[160];

    if (request->before.count == 0)
        return error_set_reason(error, REASON_NOT_FOUND, "nothing is allowed from \"%s\" to \"%s\"",
                                request->from.name, request->to.name);
    for (size_t i = 0; i < request->asked.count; i++) {
        const struct port_span *span = &request->asked.items[i];

        if (span_is_everything(&request->before.items[0]) && !span_is_everything(span))
            return error_set_reason(error, REASON_NOT_FOUND,
                                    "everything is allowed from \"%s\" to \"%s\", no port by "
                                    "itself; deny it without ports, then allow what is needed",
                                    request->from.name, request->to.name);
        if (!spans_overlaps(&request->before, span))
            return error_set_reason(error, REASON_NOT_FOUND,
                                    "port %s is not allowed from \"%s\" to \"%s\"; what is: %s",
                                    span_format(span, port), request->from.name, request->to.name,
                                    spans_describe(&request->before, text));
    }
    return 0;
}

static bool is_in(const struct network *network, const struct ip *ip)
{
    return cidr_contains_ip(&network->subnet, ip) || cidr_contains_ip(&network->subnet6, ip);
}

/* Called by another thread, while this one waits. What goes to a published port is none of ours. */
static bool is_closed(void *userdata, struct conntrack *conntrack,
                      const struct conntrack_flow *flow)
{
    const struct request *request = userdata;
    const struct port_span span = {flow->protocol, flow->port, flow->port};

    (void)conntrack;
    return !flow->published && is_in(&request->from, &flow->source) &&
           is_in(&request->to, &flow->server) && !spans_contains(&request->after, &span);
}

static int remove_asked(struct request *request, struct error *error)
{
    for (size_t i = 0; i < request->asked.count; i++)
        if (spans_remove(&request->after, &request->asked.items[i]) < 0)
            return error_set(error, ENOMEM, "passage");
    return 0;
}

static int deny(struct service *service, struct request *request, bool cut, struct error *error)
{
    char text[160];
    int r = check_open(request, error);

    if (r >= 0)
        r = remove_asked(request, error);
    if (r >= 0)
        r = check_count(service, request, error); /* a hole makes two of one */
    if (r >= 0)
        r = apply_change(service, request, error);
    if (r >= 0)
        event_emit(service, "network.denied", request->from.name, NULL, "to %s: %s",
                   request->to.name, spans_describe(&request->asked, text));
    if (r >= 0 && cut)
        r = conntrack_cut(service->conntrack, is_closed, request, error);
    return r;
}

int service_network_deny(struct service *service, const struct passage_params *params,
                         struct error *error)
{
    _cleanup_(request_deinit) struct request request = {0};
    int r = request_load(service, params, &request, error);

    return r < 0 ? r : deny(service, &request, params->cut, error);
}

/* --- with their networks --- */

int passages_append(struct service *service, int64_t network_id, bool add, struct nat_batch *batch,
                    struct error *error)
{
    _cleanup_free_ struct passage *passages = NULL;
    size_t count = 0;
    int r = store_passage_list(service->store, network_id, &passages, &count, error);

    for (size_t i = 0; r >= 0 && i < count; i++) {
        struct nat_passage passage;

        plan_passage(&passages[i], &passage);
        nat_batch_passage(batch, &passage, add);
    }
    return r;
}

/* The opening towards this network: the last one, or one more. */
static struct opening *opening_towards(struct opening **openings, size_t *count,
                                       const char *network)
{
    struct opening *grown;

    if (*count > 0 && strcmp((*openings)[*count - 1].network, network) == 0)
        return &(*openings)[*count - 1];
    grown = list_grow(*openings, *count, sizeof(*grown));
    if (!grown)
        return NULL;
    *openings = grown;
    grown[*count] = (struct opening){0};
    snprintf(grown[*count].network, sizeof(grown[*count].network), "%s", network);
    return &grown[(*count)++];
}

static int show_passage(struct network *network, const struct passage *passage)
{
    char text[SPAN_TEXT_MAX];
    struct opening *opening =
        passage->from_id == network->id
            ? opening_towards(&network->allowed_to, &network->n_allowed_to, passage->to)
            : opening_towards(&network->allowed_from, &network->n_allowed_from, passage->from);

    if (!opening)
        return -ENOMEM;
    if (span_is_everything(&passage->span))
        return 0;
    return strings_add(&opening->ports, span_format(&passage->span, text));
}

int passages_show(struct service *service, struct network *network, struct error *error)
{
    _cleanup_free_ struct passage *passages = NULL;
    size_t count = 0;
    int r = store_passage_list(service->store, network->id, &passages, &count, error);

    for (size_t i = 0; r >= 0 && i < count; i++)
        if (show_passage(network, &passages[i]) < 0)
            r = error_set(error, ENOMEM, "network");
    return r;
}
