/* SPDX-License-Identifier: GPL-2.0-or-later */
/* With the administrator's leave ([network] open_firewalls): accepts for our networks in the chains
 * of other firewalls (nat/foreign.h). They follow the networks and the firewalls' own changes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "nat/foreign.h"
#include "service/private.h"

#define OPENED_SETTING "firewalls/opened"
#define FOLLOW_DELAY_MS 100 /* a firewall that is loaded changes many things in a row */

/* Any address far away. */
static const struct ip far4 = {.family = AF_INET, .bytes = {1, 1, 1, 1}};
static const struct ip far6 = {.family = AF_INET6, .bytes = {0x2a, [15] = 1}};

static int accept_fill(struct service *service, const struct network *network,
                       const struct cidr *subnet, struct foreign_accept *accept,
                       struct error *error)
{
    bool six = subnet->ip.family == AF_INET6;

    *accept = (struct foreign_accept){
        .subnet = *subnet,
        .guest = ip_add(six ? &network->gateway6 : &network->gateway, 1),
        .far = six ? far6 : far4,
    };
    snprintf(accept->link, sizeof(accept->link), "%s", network->bridge);
    return link_way_out(service->link, &accept->far, accept->way_out, error);
}

static int accepts_collect(struct service *service, const struct network *networks, size_t n,
                           struct foreign_accept *accepts, size_t *ret_count, struct error *error)
{
    size_t count = 0;
    int r = 0;

    for (size_t i = 0; i < n; i++) {
        const struct cidr *const subnets[] = {&networks[i].subnet, &networks[i].subnet6};

        for (size_t j = 0; r >= 0 && !networks[i].internal && j < ARRAY_SIZE(subnets); j++)
            if (cidr_is_set(subnets[j]))
                r = accept_fill(service, &networks[i], subnets[j], &accepts[count++], error);
    }
    *ret_count = count;
    return r;
}

static int open_for(struct service *service, const struct network *networks, size_t n,
                    struct error *error)
{
    _cleanup_free_ struct foreign_accept *accepts = calloc(2 * n + 1, sizeof(*accepts));
    size_t count = 0;
    int r;

    if (!accepts)
        return error_set(error, ENOMEM, "firewalls");
    r = accepts_collect(service, networks, n, accepts, &count, error);
    return r < 0 ? r : foreign_accept_all(service->nat, accepts, count, error);
}

void firewalls_open(void *userdata)
{
    struct service *service = userdata;
    struct network *networks = NULL;
    struct error error = ERROR_INIT;
    size_t count = 0;
    int r;

    service_settle(service);
    r = store_network_list(service->store, &networks, &count, &error);
    if (r >= 0)
        r = open_for(service, networks, count, &error);
    for (size_t i = 0; i < count; i++)
        network_deinit(&networks[i]);
    free(networks);
    if (r < 0)
        log_warning("opening other firewalls: %s", error.text);
}

/* Whether there may be rules of ours in tables of others is remembered: to look for them takes time
 * where there are many rules. */
int firewalls_close(struct service *service, struct error *error)
{
    _cleanup_free_ char *opened = NULL;
    int r = store_setting_get(service->store, OPENED_SETTING, &opened, error);

    if (r >= 0 && opened && strcmp(opened, "yes") == 0)
        r = foreign_accept_all(service->nat, NULL, 0, error);
    return r < 0 || !opened ? r : store_setting_set(service->store, OPENED_SETTING, NULL, error);
}

void firewalls_start(struct service *service)
{
    struct error error = ERROR_INIT;
    int r;

    if (service->config->open_firewalls) {
        r = store_setting_set(service->store, OPENED_SETTING, "yes", &error);
        if (r >= 0)
            firewalls_open(service);
    } else {
        r = firewalls_close(service, &error);
    }
    if (r < 0)
        log_warning("other firewalls: %s", error.text);
}

void firewalls_follow(void *userdata)
{
    struct service *service = userdata;

    if (service->config->open_firewalls && !loop_timer_is_active(service->firewalls_timer))
        loop_timer_start(service->firewalls_timer, FOLLOW_DELAY_MS);
}
