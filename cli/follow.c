/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection that holds the guest is subscribed to the guest's events. An event only says that
 * something has changed, and what there is now is asked for: the guest, and where its networks are
 * others than before, what its files are made of. A new connection begins in the same way. Nothing
 * waits for an answer: COMMAND's signals must not wait for a daemon that hangs.
 *
 * moatd may be restarted at any time, and is found again without being asked for: a connection
 * would start it where systemd listens in its place, although an administrator has stopped it. So
 * we look at its lock, beside the socket, which every moatd writes when it starts. */
#include "follow.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

#define LOCK_NAME "moatd.lock"
#define PAUSE_MIN_MS 50 /* between two looks at the lock */
#define PAUSE_MAX_MS 1000

/* --- where is moatd? --- */

/* All zero where there is none: the socket is not in moatd's own folder. */
static void look_at_lock(const struct follow *follow, struct stat *ret_lock)
{
    const char *socket = remote_socket_path(follow->socket);
    const char *name = strrchr(socket, '/');
    char path[256];

    if (snprintf(path, sizeof(path), "%.*s" LOCK_NAME, name ? (int)(name + 1 - socket) : 0,
                 socket) >= (int)sizeof(path) ||
        stat(path, ret_lock) < 0)
        *ret_lock = (struct stat){0};
}

static bool same_lock(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void lose(struct follow *follow)
{
    remote_free(TAKE_PTR(follow->remote));
    follow->question = FOLLOW_NOTHING;
    follow->starting = false;
    follow->pause_ms = PAUSE_MIN_MS;
    follow->next_try_ms = clock_now_ms() + follow->pause_ms;
}

static int connect_again(struct follow *follow, struct error *error)
{
    look_at_lock(follow, &follow->lock);
    return remote_connect(follow->socket, &follow->remote, error);
}

static int send_question(struct follow *follow, enum follow_question question, struct error *error)
{
    const struct guest *guest = &follow->guest;
    union params params = {0};
    int r = 0;

    switch (question) {
    case FOLLOW_NOTHING:
        return 0;
    case FOLLOW_SUBSCRIPTION:
        snprintf(params.guest.guest, sizeof(params.guest.guest), "%s", guest->name);
        return remote_send(follow->remote, METHOD_EVENTS_SUBSCRIBE, &params, error);
    case FOLLOW_GUEST:
        snprintf(params.name.name, sizeof(params.name.name), "%s", guest->name);
        return remote_send(follow->remote, METHOD_GUEST_GET, &params, error);
    case FOLLOW_STATUS:
        return remote_send(follow->remote, METHOD_SYSTEM_STATUS, &params, error);
    case FOLLOW_NETWORKS:
        for (size_t i = 0; r == 0 && i < guest->n_endpoints; i++) {
            snprintf(params.name.name, sizeof(params.name.name), "%s", guest->endpoints[i].network);
            r = remote_send(follow->remote, METHOD_NETWORK_GET, &params, error);
        }
        return r;
    }
    return 0;
}

/* The end of the questions is the beginning of others where something has happened meanwhile. A
 * connection that has ended shows when it is read. */
static void ask(struct follow *follow, enum follow_question question)
{
    struct error ignored = ERROR_INIT;

    if (question == FOLLOW_NOTHING && follow->again)
        question = FOLLOW_GUEST;
    if (question == FOLLOW_GUEST)
        follow->again = false;
    follow->n_answered = 0;
    follow->question = question;
    (void)send_question(follow, question, &ignored);
}

static void try_again(struct follow *follow)
{
    struct error ignored = ERROR_INIT;
    struct stat lock;

    if (clock_now_ms() < follow->next_try_ms)
        return;
    look_at_lock(follow, &lock);
    follow->starting |= lock.st_ino == 0 || !same_lock(&lock, &follow->lock);
    if (follow->starting && connect_again(follow, &ignored) == 0) {
        ask(follow, FOLLOW_SUBSCRIPTION);
        return;
    }
    follow->pause_ms = follow->pause_ms * 2 < PAUSE_MAX_MS ? follow->pause_ms * 2 : PAUSE_MAX_MS;
    follow->next_try_ms = clock_now_ms() + follow->pause_ms;
}

/* --- files --- */

static void complain(const struct follow *follow, const struct error *error)
{
    fprintf(stderr, "moat: guest \"%s\": %s\n", follow->guest.name, error->text);
}

static void write_file(struct follow *follow, size_t index, struct text *text)
{
    struct text *before = &follow->files[index].text;
    struct error error = ERROR_INIT;

    if (etc_file_replace(follow->files[index].fd, before->data, text->data, &error) < 0)
        complain(follow, &error);
    text_deinit(before);
    *before = *text;
    *text = (struct text){0};
}

static void write_files(struct follow *follow)
{
    struct text texts[ETC_FILES] = {0};
    struct error error = ERROR_INIT;
    int r =
        resolver_write(&follow->facts, &follow->guest, &follow->wish, &texts[0], &texts[1], &error);

    if (r < 0)
        complain(follow, &error);
    for (size_t i = 0; i < ETC_FILES; i++) {
        if (r == 0)
            write_file(follow, i, &texts[i]);
        text_deinit(&texts[i]);
    }
}

/* --- answers --- */

static void set_gone(struct follow *follow, const char *reason)
{
    follow->gone = true;
    snprintf(follow->reason, sizeof(follow->reason), "%s", reason);
}

static bool same_networks(const struct guest *a, const struct guest *b)
{
    if (a->n_endpoints != b->n_endpoints)
        return false;
    for (size_t i = 0; i < a->n_endpoints; i++)
        if (strcmp(a->endpoints[i].network, b->endpoints[i].network) != 0 ||
            !ip_equal(&a->endpoints[i].ip, &b->endpoints[i].ip) ||
            !ip_equal(&a->endpoints[i].ip6, &b->endpoints[i].ip6))
            return false;
    return true;
}

static bool is_another(const struct follow *follow, const struct guest *guest)
{
    return strcmp(guest->uid, follow->guest.uid) != 0;
}

static bool is_not_found(const struct error *error)
{
    return error->kind == ERROR_REASON && error->reason == REASON_NOT_FOUND;
}

/* Returns whether its files may have to change. */
static bool take_guest(struct follow *follow, const struct proto_response *response)
{
    struct error error = ERROR_INIT;
    struct guest guest;
    bool same;

    if (proto_response_error(response, &error) < 0 ||
        proto_response_object(response, &proto_guest, &guest, &error) < 0) {
        if (is_not_found(&error))
            set_gone(follow, "detached");
        else
            complain(follow, &error);
        return false;
    }
    if (is_another(follow, &guest)) {
        guest_deinit(&guest);
        set_gone(follow, "detached");
        return false;
    }
    same = same_networks(&guest, &follow->guest);
    guest_deinit(&follow->guest);
    follow->guest = guest;
    return !same;
}

static void take_status(struct follow *follow, const struct proto_response *response)
{
    struct error error = ERROR_INIT;

    resolver_facts_deinit(&follow->facts);
    if (proto_response_error(response, &error) < 0 ||
        proto_response_object(response, &proto_status, &follow->facts.status, &error) < 0)
        complain(follow, &error);
}

/* One that is not found was removed meanwhile: there will be an event. */
static void take_network(struct follow *follow, const struct proto_response *response)
{
    struct error error = ERROR_INIT;
    struct network network;

    if (proto_response_error(response, &error) == 0 &&
        proto_response_object(response, &proto_network, &network, &error) == 0) {
        (void)resolver_facts_add(&follow->facts, &network, &error);
        network_deinit(&network);
    }
    if (error.kind != ERROR_NONE && !is_not_found(&error))
        complain(follow, &error);
}

static void take_answer(struct follow *follow, const struct proto_response *response)
{
    struct error error = ERROR_INIT;

    switch (follow->question) {
    case FOLLOW_NOTHING:
        break;
    case FOLLOW_SUBSCRIPTION:
        if (proto_response_error(response, &error) < 0)
            complain(follow, &error);
        ask(follow, FOLLOW_GUEST);
        break;
    case FOLLOW_GUEST:
        ask(follow, take_guest(follow, response) ? FOLLOW_STATUS : FOLLOW_NOTHING);
        break;
    case FOLLOW_STATUS:
        take_status(follow, response);
        ask(follow, FOLLOW_NETWORKS);
        break;
    case FOLLOW_NETWORKS:
        take_network(follow, response);
        if (++follow->n_answered < follow->guest.n_endpoints)
            break;
        write_files(follow);
        ask(follow, FOLLOW_NOTHING);
        break;
    }
}

/* --- events --- */

static void take_event(struct follow *follow, const struct proto_response *response)
{
    struct error ignored = ERROR_INIT;
    struct event event;

    if (proto_response_object(response, &proto_event, &event, &ignored) < 0)
        return;
    if (strcmp(event.type, "guest.detached") == 0 && !event.network[0])
        set_gone(follow, event.detail);
    else if (strncmp(event.type, "guest.", 6) == 0)
        follow->again = true;
}

/* What was said before the connection ended counts. */
static void take_all(struct follow *follow)
{
    int r = 0;

    while (!follow->gone) {
        _cleanup_(proto_response_freep) struct proto_response *response = NULL;

        r = remote_arrived(follow->remote, &response);
        if (r <= 0)
            break;
        if (proto_response_is_event(response))
            take_event(follow, response);
        else
            take_answer(follow, response);
    }
    if (r < 0)
        lose(follow);
    else if (follow->again && follow->question == FOLLOW_NOTHING)
        ask(follow, FOLLOW_GUEST);
}

/* --- the whole --- */

void follow_init(struct follow *ret_follow, const char *socket)
{
    *ret_follow = (struct follow){.socket = socket};
    for (size_t i = 0; i < ETC_FILES; i++)
        ret_follow->files[i].fd = -1;
    look_at_lock(ret_follow, &ret_follow->lock);
}

void follow_deinit(struct follow *follow)
{
    remote_free(follow->remote);
    guest_deinit(&follow->guest);
    resolver_facts_deinit(&follow->facts);
    for (size_t i = 0; i < ETC_FILES; i++) {
        if (follow->files[i].fd >= 0)
            close(follow->files[i].fd);
        text_deinit(&follow->files[i].text);
    }
}

void follow_begin(struct follow *follow, struct remote *remote, struct guest *guest,
                  const struct resolver_wish *wish, struct text *conf, struct text *hosts)
{
    follow->remote = remote;
    follow->guest = *guest;
    *guest = (struct guest){0};
    follow->wish = *wish;
    follow->files[0].text = *conf;
    follow->files[1].text = *hosts;
    *conf = *hosts = (struct text){0};
}

void follow_take_files(struct follow *follow, const int files[CHANNEL_FILES])
{
    static_assert(CHANNEL_FILES == ETC_FILES, "they are the same");
    for (size_t i = 0; i < ETC_FILES; i++)
        follow->files[i].fd = files[i];
    ask(follow, FOLLOW_SUBSCRIPTION);
}

/* Before the files are there, they can't be written. */
static bool is_following(const struct follow *follow)
{
    return follow->files[0].fd >= 0 && !follow->gone;
}

int follow_fd(const struct follow *follow)
{
    return is_following(follow) && follow->remote ? remote_fd(follow->remote) : -1;
}

int follow_timeout_ms(const struct follow *follow)
{
    int64_t left_ms;

    if (!is_following(follow) || follow->remote)
        return -1;
    left_ms = follow->next_try_ms - clock_now_ms();
    return left_ms > 0 ? (int)left_ms : 0;
}

void follow_turn(struct follow *follow)
{
    if (!is_following(follow))
        return;
    if (follow->remote)
        take_all(follow);
    else
        try_again(follow);
}

/* --- the end --- */

/* Of another moatd: is the guest of this name still ours? */
static int find_again(struct follow *follow, struct error *error)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    union params params = {0};
    struct guest guest;
    int r = connect_again(follow, error);

    snprintf(params.name.name, sizeof(params.name.name), "%s", follow->guest.name);
    if (r == 0)
        r = remote_call(follow->remote, METHOD_GUEST_GET, &params, &response, error);
    if (r == 0)
        r = proto_response_object(response, &proto_guest, &guest, error);
    if (r < 0)
        return r;
    follow->gone = is_another(follow, &guest);
    guest_deinit(&guest);
    return 0;
}

void follow_detach(struct follow *follow)
{
    _cleanup_(proto_response_freep) struct proto_response *response = NULL;
    struct error ignored = ERROR_INIT;
    union params params = {0};

    if (follow->gone || (!follow->remote && find_again(follow, &ignored) < 0) || follow->gone)
        return;
    snprintf(params.guest_detach.name, sizeof(params.guest_detach.name), "%s", follow->guest.name);
    (void)remote_call(follow->remote, METHOD_GUEST_DETACH, &params, &response, &ignored);
}
