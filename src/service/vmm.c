/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a VMM needs to put a guest on its taps: the same as DHCP tells the guest, in the forms that
 * VMMs and kernels take. Made for answers, never stored. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "service/private.h"

/* The router has this address on every link of a network. */
static const struct ip router6 = {.family = AF_INET6, .bytes = {0xfe, 0x80, [15] = 1}};

static int servers_copy(const struct dhcp_servers *servers, struct ips *ips)
{
    for (uint32_t i = 0; i < servers->count; i++) {
        if (ips_add(ips, &servers->items[i]) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int interface_fill(const struct endpoint *endpoint, const struct dhcp_port *port,
                          struct vmm_interface *interface)
{
    snprintf(interface->tap, sizeof(interface->tap), "%s", endpoint->host_interface);
    interface->mac = endpoint->mac;
    interface->mtu = port->mtu;
    if (ip_is_set(&port->ip))
        interface->address = (struct cidr){port->ip, port->prefix};
    if (ip_is_set(&port->ip6))
        interface->address6 = (struct cidr){port->ip6, port->prefix6};
    if (port->default_route)
        interface->gateway = port->gateway;
    if (port->default_route6)
        interface->gateway6 = router6;
    if (servers_copy(&port->dns, &interface->dns) < 0)
        return -ENOMEM;
    return servers_copy(&port->dns6, &interface->dns);
}

static void device_fill(const struct endpoint *endpoint, struct vmm_device *device)
{
    snprintf(device->iface_id, sizeof(device->iface_id), "eth%u", endpoint->position % 1000);
    snprintf(device->host_dev_name, sizeof(device->host_dev_name), "%s", endpoint->host_interface);
    device->guest_mac = endpoint->mac;
}

/* Documentation/admin-guide/nfs/nfsroot.rst of the kernel:
 * ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1:NTP0 */
static void kernel_ip_fill(const struct dhcp_port *port, const char *device, struct vmm *vmm)
{
    struct ip mask = ip_from_v4(port->prefix ? UINT32_MAX << (32 - port->prefix) : 0);
    static const struct ip none = {0};
    char texts[6][IP_TEXT_MAX];

    snprintf(vmm->kernel_ip, sizeof(vmm->kernel_ip), "ip=%s::%s:%s:%s:%s:off:%s:%s:%s",
             ip_format(&port->ip, texts[0]),
             ip_format(port->default_route ? &port->gateway : &none, texts[1]),
             ip_format(&mask, texts[2]), port->host_name, device,
             ip_format(port->dns.count > 0 ? &port->dns.items[0] : &none, texts[3]),
             ip_format(port->dns.count > 1 ? &port->dns.items[1] : &none, texts[4]),
             ip_format(port->ntp.count > 0 ? &port->ntp.items[0] : &none, texts[5]));
}

static int vmm_fill(struct service *service, const struct guest_plan *plan, struct vmm *vmm)
{
    const struct guest *guest = plan->guest;
    size_t configured = plan_localhost_endpoint(plan); /* the kernel configures one alone */

    vmm->interfaces = calloc(guest->n_endpoints + 1, sizeof(*vmm->interfaces));
    vmm->devices = calloc(guest->n_endpoints + 1, sizeof(*vmm->devices));
    if (!vmm->interfaces || !vmm->devices)
        return -ENOMEM;
    for (size_t i = 0; i < guest->n_endpoints; i++) {
        struct dhcp_port port;

        plan_lease(plan, i, service->config, names_upstreams(service->names), &port);
        device_fill(&guest->endpoints[i], &vmm->devices[vmm->n_devices++]);
        if (i == configured && ip_is_set(&port.ip))
            kernel_ip_fill(&port, vmm->devices[i].iface_id, vmm);
        if (interface_fill(&guest->endpoints[i], &port, &vmm->interfaces[vmm->n_interfaces++]) < 0)
            return -ENOMEM;
    }
    return 0;
}

int guest_show_vmm(struct service *service, struct guest *guest, struct error *error)
{
    struct guest_plan plan;
    int r;

    if (guest->kind != KIND_TAP)
        return 0;
    r = guest_plan_load(service, guest, &plan, error);
    if (r < 0)
        return r;
    guest->has_vmm = true;
    if (vmm_fill(service, &plan, &guest->vmm) < 0)
        r = error_set(error, ENOMEM, "guest");
    guest_plan_deinit_networks(&plan);
    return r;
}
