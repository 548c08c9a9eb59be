/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests that are there: list, get, and where their namespaces are. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/yield.h"
#include "service/private.h"

int guest_find(struct service *service, const char *name, struct guest *ret_guest,
               struct error *error)
{
    bool found = false;
    int r = store_guest_find(service->store, name, ret_guest, &found, error);

    if (r >= 0 && !found)
        return error_set_reason(error, REASON_NOT_FOUND, "there is no guest \"%s\"; see `moat ps`",
                                name);
    return r;
}

/* Is it still the process that was attached, in the namespace that was attached? */
static bool process_is_there(const struct guest *guest)
{
    uint64_t start = 0;

    return process_start_time(guest->pid, &start) == 0 && start == guest->pid_start &&
           netns_is_of_pid(guest->pid, guest->netns_dev, guest->netns_ino);
}

void guest_show_netns(struct guest *guest)
{
    if (guest->pid && !process_is_there(guest))
        guest->pid = 0;
    if (guest->netns && !netns_is_at(guest->netns, guest->netns_dev, guest->netns_ino)) {
        free(guest->netns);
        guest->netns = NULL;
    }
    if (!guest->netns && guest->pid && asprintf(&guest->netns, "/proc/%d/ns/net", guest->pid) < 0)
        guest->netns = NULL;
}

int service_guest_get(struct service *service, const char *name, struct guest *ret_guest,
                      struct error *error)
{
    struct guest guest = {0};
    int r = guest_find(service, name, &guest, error);

    if (r >= 0)
        r = guest_show_vmm(service, &guest, error);
    if (r >= 0)
        r = guest_show_drops(service, &guest, error);
    waiting_show(service, guest.ports, guest.n_ports);
    if (r < 0) {
        guest_deinit(&guest);
        return r;
    }
    guest_show_netns(&guest);
    *ret_guest = guest;
    return 0;
}

int service_guest_list(struct service *service, struct guest **ret_guests, size_t *ret_count,
                       struct error *error)
{
    struct guest *guests = NULL;
    size_t count = 0;
    int r = store_guest_list(service->store, &guests, &count, error);

    for (size_t i = 0; r >= 0 && i < count; i++) {
        guest_show_netns(&guests[i]);
        r = guest_show_vmm(service, &guests[i], error);
        waiting_show(service, guests[i].ports, guests[i].n_ports);
        yield_if_due();
    }
    if (r >= 0)
        r = guests_show_drops(service, guests, count, error);
    if (r < 0) {
        for (size_t i = 0; i < count; i++)
            guest_deinit(&guests[i]);
        free(guests);
        return r;
    }
    *ret_guests = guests;
    *ret_count = count;
    return 0;
}

/* By what it was named by. */
static int open_as_attached(const struct guest *guest, int *ret_fd)
{
    struct error ignored = ERROR_INIT; /* absence is an answer here */
    uint64_t start = 0;

    if (guest->netns)
        return netns_open_path(guest->netns, ret_fd, &ignored);
    if (guest->pid)
        return netns_open_pid(guest->pid, ret_fd, &start, &ignored);
    return -ENOENT;
}

static bool is_the_guests(const struct guest *guest, int fd)
{
    struct error ignored = ERROR_INIT;
    uint64_t dev = 0;
    uint64_t ino = 0;

    return netns_identify(fd, &dev, &ino, &ignored) >= 0 && dev == guest->netns_dev &&
           ino == guest->netns_ino;
}

void guest_netns_open(const struct guest *guest, int *ret_fd)
{
    _cleanup_close_ int fd = -1;

    *ret_fd = -1;
    if (guest->netns_ino == 0)
        return;
    if (open_as_attached(guest, &fd) >= 0 && is_the_guests(guest, fd)) {
        *ret_fd = TAKE_FD(fd);
        return;
    }
    if (fd >= 0)
        close(TAKE_FD(fd));
    if (netns_open_handle(guest->netns_handle, &fd) >= 0 && is_the_guests(guest, fd))
        *ret_fd = TAKE_FD(fd);
}

/* Does its handle say so? */
static bool netns_is_gone(const struct guest *guest)
{
    _cleanup_close_ int fd = -1;

    return netns_open_handle(guest->netns_handle, &fd) == -ESTALE;
}

void guest_netns_find(const struct guest *guest, int *ret_fd)
{
    guest_netns_open(guest, ret_fd);
    if (*ret_fd < 0 && guest->netns_ino != 0 && !netns_is_gone(guest) &&
        netns_find(guest->netns_dev, guest->netns_ino, ret_fd) < 0)
        *ret_fd = -1;
}

int guest_netns_lost(const struct guest *guest, struct error *error)
{
    if (netns_is_gone(guest))
        return error_set_reason(error, REASON_NOT_FOUND, "the namespace of guest \"%s\" is gone",
                                guest->name);
    return error_set_reason(
        error, REASON_NOT_FOUND,
        "the namespace of guest \"%s\" can't be reached: nothing leads there "
        "but links and descriptors, which takes Linux 6.18; start a process in it",
        guest->name);
}

int netns_check_free(struct service *service, const struct guest *guest, struct error *error)
{
    struct guest other = {0};
    bool found = false;
    int r = store_guest_find_by_netns(service->store, guest->netns_dev, guest->netns_ino, &other,
                                      &found, error);

    if (r >= 0 && found)
        r = error_set_reason(
            error, REASON_IN_USE,
            "that namespace is guest \"%s\"'s; `moat attach %s --network NET` adds a network to it",
            other.name, other.name);
    guest_deinit(&other);
    return r;
}

int endpoint_forget(struct service *service, const struct guest *guest, size_t index,
                    const struct network *network, struct error *error)
{
    const struct endpoint *endpoint = &guest->endpoints[index];
    int r = 0;

    if (ip_is_set(&endpoint->ip))
        r = store_address_release(service->store, network, &endpoint->ip, guest->name, error);
    if (r >= 0 && ip_is_set(&endpoint->ip6))
        r = store_address_release(service->store, network, &endpoint->ip6, guest->name, error);
    return r < 0 ? r : store_endpoint_delete(service->store, endpoint->id, error);
}
