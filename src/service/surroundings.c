/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What changes on the host around us and is not ours: its addresses and routes, which a network may
 * collide with, and its MTU, which guests follow. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "service/private.h"

#define LOOK_DELAY_MS 20 /* what changes in one go is looked at in one go */

bool prefix_collides(const struct link_prefix *prefix, const struct network *network)
{
    const struct cidr *subnet =
        prefix->cidr.ip.family == AF_INET ? &network->subnet : &network->subnet6;

    return cidr_is_set(subnet) && cidr_overlaps(&prefix->cidr, subnet);
}

/* A LAN or VPN that came later with a subnet of ours shadows it, or is shadowed: said once for each
 * prefix, which an address and its route have in common, and by doctor for as long as it lasts. */
static void tell_collision(struct service *service, const struct network *network,
                           const struct link_prefix *prefix, struct strings *now)
{
    const struct cidr masked = cidr_mask(&prefix->cidr);
    char text[CIDR_TEXT_MAX];
    char key[NAME_MAX_LENGTH + 1 + CIDR_TEXT_MAX];

    snprintf(key, sizeof(key), "%s %s", network->name, cidr_format(&masked, text));
    if (strings_contains(now, key) || strings_add(now, key) < 0 ||
        strings_contains(&service->collisions, key))
        return;
    event_emit(service, "subnet.collision", network->name, NULL, "%s is on the host too%s%s",
               cidr_format(&prefix->cidr, text), prefix->interface[0] ? ": " : "",
               prefix->interface);
    log_warning("network %s: the host uses %s now, which overlaps it", network->name, text);
}

static void look_for_collisions(struct service *service)
{
    struct network *networks = NULL;
    struct link_prefix *prefixes = NULL;
    struct strings now = {0};
    struct error error = ERROR_INIT;
    size_t n_networks = 0;
    size_t n_prefixes = 0;

    if (store_network_list(service->store, &networks, &n_networks, &error) < 0 ||
        link_prefix_list(service->link, &prefixes, &n_prefixes, &error) < 0)
        log_warning("looking for colliding subnets: %s", error.text);
    for (size_t i = 0; i < n_networks; i++) {
        for (size_t j = 0; j < n_prefixes; j++) {
            if (!prefixes[j].ours && prefix_collides(&prefixes[j], &networks[i]))
                tell_collision(service, &networks[i], &prefixes[j], &now);
        }
        network_deinit(&networks[i]);
    }
    free(networks);
    free(prefixes);
    strings_deinit(&service->collisions);
    service->collisions = now;
}

void surroundings_look(void *userdata)
{
    struct service *service = userdata;
    struct error error = ERROR_INIT;
    uint32_t mtu = 0;

    service_settle(service);
    if (link_default_mtu(service->link, &mtu, &error) < 0)
        log_warning("the host's MTU: %s", error.text);
    else if (mtu != service->applied_mtu) {
        log_info("the host's MTU is %u now", mtu);
        service->host_mtu = mtu;
        reconcile_schedule(service);
    }
    look_for_collisions(service);
    firewalls_follow(service);
    if (default_network_ensure(service, &error) < 0)
        log_warning("the network \"" DEFAULT_NETWORK "\": %s", error.text);
}

void surroundings_changed(void *userdata)
{
    struct service *service = userdata;

    service->host_mtu = 0;
    if (!loop_timer_is_active(service->host_timer))
        loop_timer_start(service->host_timer, LOOK_DELAY_MS);
}
