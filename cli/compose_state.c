/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A service's process is ended by way of the one that keeps its guest: that passes SIGTERM on, and
 * when it is killed, the kernel ends all that the service has started. Who that is says the daemon,
 * which knows it from the kernel. */
#include "compose_state.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>

#include "clock.h"
#include "remote.h"

/* --- asking --- */

static int list(struct invocation *invocation, enum method_id method,
                const struct proto_object *object, void **ret_items, size_t *ret_count)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    union params params = {0};
    int code = invocation_call(invocation, method, &params, &response);

    return code != EXIT_DONE ? code
                             : invocation_decode_list(response, object, ret_items, ret_count);
}

int compose_state_load(struct invocation *invocation, struct compose_state *ret_state)
{
    struct compose_state state = {0};
    void *items = NULL;
    int code = list(invocation, METHOD_GUEST_LIST, &proto_guest, &items, &state.n_guests);

    state.guests = items;
    if (code == EXIT_DONE) {
        items = NULL;
        code = list(invocation, METHOD_NETWORK_LIST, &proto_network, &items, &state.n_networks);
        state.networks = items;
    }
    if (code == EXIT_DONE)
        *ret_state = state;
    else
        compose_state_deinit(&state);
    return code;
}

void compose_state_deinit(struct compose_state *state)
{
    invocation_free_list(&proto_guest, state->guests, state->n_guests);
    invocation_free_list(&proto_network, state->networks, state->n_networks);
    *state = (struct compose_state){0};
}

const struct guest *compose_state_guest(const struct compose_state *state, const char *name)
{
    for (size_t i = 0; i < state->n_guests; i++)
        if (strcmp(state->guests[i].name, name) == 0)
            return &state->guests[i];
    return NULL;
}

const struct network *compose_state_network(const struct compose_state *state, const char *name)
{
    for (size_t i = 0; i < state->n_networks; i++)
        if (strcmp(state->networks[i].name, name) == 0)
            return &state->networks[i];
    return NULL;
}

bool compose_labelled(const struct labels *labels, const char *kind, const char *value)
{
    const char *found = labels_find(labels, kind);

    return found && strcmp(found, value) == 0;
}

/* --- networks --- */

int compose_network_create(struct invocation *invocation, const struct compose_network *network)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    struct error error = ERROR_INIT;
    int r =
        remote_call(invocation->remote, METHOD_NETWORK_CREATE, &network->params, &response, &error);

    if (r == 0)
        return EXIT_DONE;
    error_add_context(&error, "network %s", network->key);
    return invocation_fail(r == -ENOTCONN ? EXIT_UNREACHABLE : EXIT_REFUSED, &error);
}

int compose_network_remove(struct invocation *invocation, const char *name)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    struct error error = ERROR_INIT;
    union params params = {0};
    int r;

    snprintf(params.network_remove.name, sizeof(params.network_remove.name), "%s", name);
    r = remote_call(invocation->remote, METHOD_NETWORK_REMOVE, &params, &response, &error);
    if (r == 0 || error.reason == REASON_NOT_FOUND)
        return EXIT_DONE;
    return invocation_fail(r == -ENOTCONN ? EXIT_UNREACHABLE : EXIT_REFUSED, &error);
}

/* --- guests --- */

struct stop {
    const struct guest *guest;
    int pidfd; /* of its owner; -1: it has none, or that has ended */
};

/* The guest is asked for again once the pidfd is there: then that is of the right process. */
static int open_owner(struct invocation *invocation, struct stop *stop)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    struct error error = ERROR_INIT;
    union params params = {0};
    struct guest again;
    bool same;

    stop->pidfd = -1;
    if (stop->guest->owner_pid <= 0)
        return EXIT_DONE;
    snprintf(params.name.name, sizeof(params.name.name), "%s", stop->guest->name);
    stop->pidfd = pidfd_open(stop->guest->owner_pid, 0);
    if (stop->pidfd < 0)
        return EXIT_DONE; /* it has ended just now */
    if (remote_call(invocation->remote, METHOD_GUEST_GET, &params, &response, &error) < 0 ||
        proto_response_object(response, &proto_guest, &again, &error) < 0) {
        close(TAKE_FD(stop->pidfd));
        return error.reason == REASON_NOT_FOUND ? EXIT_DONE : invocation_fail(EXIT_REFUSED, &error);
    }
    same = strcmp(again.uid, stop->guest->uid) == 0 && again.owner_pid == stop->guest->owner_pid;
    guest_deinit(&again);
    if (!same)
        close(TAKE_FD(stop->pidfd));
    return EXIT_DONE;
}

static int send_signal(const struct stop *stop, int signal_number)
{
    struct error error = ERROR_INIT;

    if (stop->pidfd < 0 || pidfd_send_signal(stop->pidfd, signal_number, NULL, 0) == 0 ||
        errno == ESRCH)
        return EXIT_DONE;
    error_set(&error, errno, "can't end the guest %s: process %d keeps it", stop->guest->name,
              stop->guest->owner_pid);
    return invocation_fail(EXIT_REFUSED, &error);
}

#define FOREVER INT64_MAX

/* Until it has ended, or until this moment; timeouts are bounded by COMPOSE_TIMEOUT_MAX_S. */
static bool wait_end(struct stop *stop, int64_t until_ms)
{
    struct pollfd fd = {.fd = stop->pidfd, .events = POLLIN};

    while (stop->pidfd >= 0) {
        int64_t left_ms = until_ms == FOREVER ? -1 : until_ms - clock_now_ms();
        int n = poll(&fd, 1, until_ms != FOREVER && left_ms < 0 ? 0 : (int)left_ms);

        if (n > 0)
            close(TAKE_FD(stop->pidfd));
        else if (n == 0)
            return false;
    }
    return true;
}

int compose_guest_detach(struct invocation *invocation, const char *name)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    struct error error = ERROR_INIT;
    union params params = {0};

    snprintf(params.guest_detach.name, sizeof(params.guest_detach.name), "%s", name);
    if (remote_call(invocation->remote, METHOD_GUEST_DETACH, &params, &response, &error) == 0 ||
        error.reason == REASON_NOT_FOUND)
        return EXIT_DONE;
    return invocation_fail(EXIT_REFUSED, &error);
}

static int stop_all(struct invocation *invocation, struct stop *stops, size_t count,
                    unsigned timeout_s)
{
    int64_t until_ms = clock_now_ms() + (int64_t)timeout_s * 1000;
    int code = EXIT_DONE;

    for (size_t i = 0; code == EXIT_DONE && i < count; i++)
        code = open_owner(invocation, &stops[i]);
    for (size_t i = 0; code == EXIT_DONE && i < count; i++)
        code = send_signal(&stops[i], SIGTERM);
    for (size_t i = 0; code == EXIT_DONE && i < count; i++)
        if (!wait_end(&stops[i], until_ms))
            code = send_signal(&stops[i], SIGKILL);
    for (size_t i = 0; code == EXIT_DONE && i < count; i++) {
        (void)wait_end(&stops[i], FOREVER);
        code = compose_guest_detach(invocation, stops[i].guest->name);
    }
    return code;
}

int compose_guests_stop(struct invocation *invocation, const struct guest *const *guests,
                        size_t count, unsigned timeout_s)
{
    _cleanup_free_ struct stop *stops = calloc(count + 1, sizeof(*stops));
    struct error error = ERROR_INIT;
    int code;

    if (!stops) {
        error_set(&error, ENOMEM, "stop");
        return invocation_fail(EXIT_REFUSED, &error);
    }
    for (size_t i = 0; i < count; i++)
        stops[i] = (struct stop){.guest = guests[i], .pidfd = -1};
    code = stop_all(invocation, stops, count, timeout_s);
    for (size_t i = 0; i < count; i++)
        if (stops[i].pidfd >= 0)
            close(stops[i].pidfd);
    return code;
}
