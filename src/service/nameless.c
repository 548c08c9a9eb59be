/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A host whose own name server listens on every address has no port 53 left on the gateways of
 * networks. That is no reason to be without the networks that are there already, nor without the
 * default one: they are served without sockets, doctor names the program, and the ports are tried
 * until they are free. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

#define RETRY_MS 2000

struct nameless {
    struct nameless *next;
    int64_t network_id;
    char network[NAME_MAX_LENGTH + 1];
    char why[sizeof(((struct error *)0)->text)];
};

static struct nameless **find(struct service *service, int64_t network_id)
{
    struct nameless **link = &service->nameless;

    while (*link && (*link)->network_id != network_id)
        link = &(*link)->next;
    return link;
}

void nameless_forget(struct service *service, int64_t network_id)
{
    struct nameless **link = find(service, network_id);
    struct nameless *item = *link;

    if (!item)
        return;
    *link = item->next;
    free(item);
}

/* Returns 1 when the network is served, 0 when its port is not to be had. */
static int serve(struct service *service, struct nameless *item, struct error *error)
{
    struct network network = {0};
    int r = network_load(service, item->network_id, &network, error);

    if (r >= 0)
        r = names_network_add(service->names, &network, error);
    network_deinit(&network);
    if (r < 0 && error->reason == REASON_PORT_IN_USE) {
        snprintf(item->why, sizeof(item->why), "%s", error->text);
        return 0;
    }
    return r < 0 ? r : 1;
}

static void retry(void *userdata)
{
    struct service *service = userdata;
    struct nameless *next;

    for (struct nameless *item = service->nameless; item; item = next) {
        struct error error = ERROR_INIT;
        int r = serve(service, item, &error);

        next = item->next;
        if (r > 0) {
            event_emit(service, "repaired", item->network, NULL, "the name service");
            log_info("network %s has its name service now", item->network);
            nameless_forget(service, item->network_id);
        } else if (r < 0) {
            log_error("the name service of network %s: %s", item->network, error.text);
        }
    }
    if (service->nameless)
        loop_timer_start(service->nameless_timer, RETRY_MS);
}

static int remember(struct service *service, const struct network *network, struct error *error)
{
    struct nameless **link = find(service, network->id);
    struct nameless *item = *link;

    if (!service->nameless_timer)
        service->nameless_timer = loop_timer_new(service->loop, retry, service);
    if (!item && service->nameless_timer)
        item = *link = calloc(1, sizeof(*item));
    if (!item)
        return error_set(error, ENOMEM, "the name service");
    item->network_id = network->id;
    memcpy(item->network, network->name, sizeof(item->network));
    snprintf(item->why, sizeof(item->why), "%s", error->text);
    log_error("network %s has no name service yet: %s", network->name, error->text);
    loop_timer_start(service->nameless_timer, RETRY_MS);
    return 0;
}

int nameless_network_add(struct service *service, const struct network *network,
                         struct error *error)
{
    struct network silent = *network; /* borrowed lists: only read */
    int r = names_network_add(service->names, network, error);

    if (r >= 0 || error->reason != REASON_PORT_IN_USE)
        return r;
    r = remember(service, network, error);
    if (r < 0)
        return r;
    *error = ERROR_INIT;
    silent.dns = false;
    r = names_network_add(service->names, &silent, error);
    if (r < 0)
        nameless_forget(service, network->id);
    return r;
}

bool nameless_get(const struct service *service, size_t index, const char **ret_network,
                  const char **ret_why)
{
    const struct nameless *item = service->nameless;

    while (item && index-- > 0)
        item = item->next;
    if (!item)
        return false;
    *ret_network = item->network;
    *ret_why = item->why;
    return true;
}

void nameless_free_all(struct service *service)
{
    while (service->nameless)
        nameless_forget(service, service->nameless->network_id);
    loop_timer_free(service->nameless_timer);
    service->nameless_timer = NULL;
}
