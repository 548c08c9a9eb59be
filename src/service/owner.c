/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ephemeral guests end with their owner: when its connection closes, or when the process that asked
 * ends. The second holds over a restart of moatd, when the connection is gone for another reason.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

struct owner {
    struct service *service;
    struct owner *next;
    int64_t guest_id;
    const void *connection; /* NULL after a restart of moatd */
    int pidfd;              /* -1 when the process is not ours to see */
    struct loop_io *io;
};

static void owner_free(struct owner *owner)
{
    loop_io_free(owner->io);
    cleanup_close(&owner->pidfd);
    free(owner);
}

/* A pidfd is readable when its process has ended. */
static void on_end(void *userdata, unsigned events)
{
    struct owner *owner = userdata;

    (void)events;
    guest_remove_by_id(owner->service, owner->guest_id, "its owner ended"); /* frees owner */
}

void service_peer_identify(struct peer *peer)
{
    if (peer->pid > 0 && process_start_time(peer->pid, &peer->pid_start) < 0)
        peer->pid = 0;
}

bool owner_is_alive(const struct guest *guest)
{
    uint64_t start = 0;

    return guest->owner_pid > 0 && process_start_time(guest->owner_pid, &start) == 0 &&
           start == guest->owner_start;
}

int owner_add(struct service *service, const struct guest *guest, const void *connection,
              struct error *error)
{
    struct owner *owner = calloc(1, sizeof(*owner));

    if (!owner)
        return error_set(error, ENOMEM, "owner");
    *owner = (struct owner){
        .service = service, .guest_id = guest->id, .connection = connection, .pidfd = -1};
    if (owner_is_alive(guest))
        owner->pidfd = (int)syscall(SYS_pidfd_open, guest->owner_pid, 0);
    if (owner->pidfd >= 0) {
        owner->io = loop_io_new(service->loop, owner->pidfd, LOOP_READ, on_end, owner);
        if (!owner->io) {
            owner_free(owner);
            return error_set(error, ENOMEM, "owner");
        }
    }
    owner->next = service->owners;
    service->owners = owner;
    return 0;
}

void owner_remove(struct service *service, int64_t guest_id)
{
    for (struct owner **place = &service->owners; *place; place = &(*place)->next) {
        struct owner *owner = *place;

        if (owner->guest_id != guest_id)
            continue;
        *place = owner->next;
        owner_free(owner);
        return;
    }
}

void owner_free_all(struct service *service)
{
    while (service->owners) {
        struct owner *owner = service->owners;

        service->owners = owner->next;
        owner_free(owner);
    }
}

static struct owner *find(struct service *service, const void *connection)
{
    struct owner *owner = service->owners;

    while (owner && owner->connection != connection)
        owner = owner->next;
    return owner;
}

void service_connection_closed(struct service *service, const void *connection)
{
    struct owner *owner;

    learn_connection_closed(service, connection);
    while ((owner = find(service, connection))) {
        int64_t guest_id = owner->guest_id;

        guest_remove_by_id(service, guest_id, "its connection closed");
        owner_remove(service, guest_id); /* gone already unless the removal failed */
    }
}
