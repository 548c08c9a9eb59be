/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Has the worker handled what it was sent? A question goes the way of all messages and comes back
 * when everything before it is done. Who asks waits for the answer (worker_sync), or hears of it
 * from the loop (worker_sync_begin); a ping is a question that nobody waits for.
 *
 * A slow worker is no broken one: a question stays open until it is answered or the process is
 * gone. But one that somebody waited for in vain is not waited for again until it answers, so that
 * it delays the loop once, and one that stays silent is killed. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/yield.h"
#include "worker/supervised.h"
#include "worker/takeover.h"

#define PING_INTERVAL_MS 2000
#define PING_TIMEOUT_MS 5000
#define LATE_TIMEOUT_MS 1000 /* for one that somebody waited for in vain */
#define BEGUN_TIMEOUT_MS 1500
#define FULL_LOOK_MS 1 /* at a full channel, where others go on meanwhile */

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void syncs_answered(struct worker *worker, const struct channel_message *message)
{
    struct syncs *syncs = &worker->syncs;
    struct worker_sync sync;

    if (message->header.length != sizeof(sync))
        return;
    memcpy(&sync, message->payload, sizeof(sync));
    if (sync.number > syncs->answered && sync.number <= syncs->sent)
        syncs->answered = sync.number;
}

void syncs_tell(struct worker *worker)
{
    if (worker->ops->synced)
        worker->ops->synced(worker->userdata);
}

/* What was sent before to a process that is being killed is handled when it is gone (syncs_end);
 * where there is none, it is. */
static void sync_send(struct worker *worker)
{
    struct syncs *syncs = &worker->syncs;
    struct worker_sync sync = {.number = ++syncs->sent};

    worker_tell(worker, WORKER_SYNC, &sync, sizeof(sync));
    if (!worker->pid)
        syncs->answered = syncs->sent;
}

/* Whoever waits for it from the loop hears of it from the loop. */
void syncs_tell_later(struct worker *worker)
{
    loop_wake_send(worker->syncs.due);
}

static void answered_early(struct worker *worker, const struct channel_message *message)
{
    syncs_answered(worker, message);
    syncs_tell_later(worker);
}

/* Reads until the answer is there. Meanwhile the queue goes out, and what is urgent goes on, which
 * may send messages but waits for none. */
static int sync_wait(struct worker *worker, uint64_t number, uint64_t deadline_ms,
                     struct channel_message *message)
{
    while (channel_is_open(&worker->channel) && worker->syncs.answered < number) {
        struct pollfd full = {.fd = worker->channel.fd, .events = POLLIN | POLLOUT};
        uint64_t now = now_ms();
        int code;

        while (channel_is_open(&worker->channel) && supervised_take(worker, message)) {
            if (message->header.type == WORKER_SYNC)
                answered_early(worker, message);
            else if (message->header.type >= WORKER_FIRST_OWN)
                supervised_inbox_add(worker, message, false);
        }
        if (!channel_is_open(&worker->channel) || worker->syncs.answered >= number)
            break;
        code = channel_flush(&worker->channel);
        if (code < 0 && code != -EAGAIN) {
            supervised_fail(worker);
            break;
        }
        if (now >= deadline_ms)
            return -ETIMEDOUT;
        if (code == -EAGAIN && !yield_is_possible())
            poll(&full, 1, (int)(deadline_ms - now));
        else if (code == -EAGAIN)
            yield_poll(worker->channel.fd, FULL_LOOK_MS);
        else
            yield_poll(worker->channel.fd, (int)(deadline_ms - now));
    }
    supervised_watch(worker);
    return 0;
}

/* Not into the loop's own buffer: this may be called while a message in it is being handled. */
static int sync_wait_new_buffer(struct worker *worker, uint64_t number, uint64_t deadline_ms)
{
    _cleanup_free_ struct channel_message *message = malloc(sizeof(*message));

    return message ? sync_wait(worker, number, deadline_ms, message) : -ENOMEM;
}

/* An answer may be there that nobody has read yet. */
static bool is_silent(struct worker *worker, uint64_t number)
{
    return channel_is_open(&worker->channel) && worker->syncs.answered < number &&
           sync_wait_new_buffer(worker, number, 0) == -ETIMEDOUT;
}

/* Was it waited for in vain, and has not answered since? */
static bool is_late(struct worker *worker)
{
    return is_silent(worker, worker->syncs.late_number);
}

/* One that is being killed is waited for too: until it is gone, it has what it has. */
static int own_sync_wait(struct worker *worker, uint64_t deadline_ms)
{
    struct syncs *syncs = &worker->syncs;
    uint64_t number = syncs->sent; /* others may be sent meanwhile */
    int code = sync_wait_new_buffer(worker, number, deadline_ms);
    struct pollfd process = {.fd = worker->pidfd, .events = POLLIN};
    uint64_t now = now_ms();

    if (code == -ETIMEDOUT) {
        syncs->late_number = number;
        loop_timer_start(worker->syncs.late_timer, LATE_TIMEOUT_MS);
    } else if (code == 0 && syncs->answered < number && process.fd >= 0) {
        if (poll(&process, 1, deadline_ms > now ? (int)(deadline_ms - now) : 0) != 1)
            return -ETIMEDOUT;
        syncs->answered = syncs->sent; /* it is gone */
        syncs_tell_later(worker);
    }
    return code;
}

int worker_sync(struct worker *worker, unsigned timeout_ms)
{
    uint64_t deadline_ms = now_ms() + timeout_ms;
    bool late = is_late(worker);
    int code;
    int draining;

    sync_send(worker);
    takeover_sync_start(worker->takeover, worker->syncs.sent);
    code = late ? -ETIMEDOUT : own_sync_wait(worker, deadline_ms);
    draining = takeover_sync_wait(worker->takeover, deadline_ms);
    return code < 0 ? code : draining;
}

/* ---------------------------------------------------------------- without waiting */

static void begun_watch(struct worker *worker)
{
    worker->syncs.begun_first = worker->syncs.begun_number;
    loop_timer_start(worker->syncs.begun_timer, BEGUN_TIMEOUT_MS);
}

static void silent_kill(struct worker *worker)
{
    log_error("the %s worker (pid %d) does not answer: killing it", worker->kind, (int)worker->pid);
    supervised_fail(worker);
}

static void begun_due(void *userdata)
{
    struct worker *worker = userdata;
    struct syncs *syncs = &worker->syncs;
    bool unsent = worker->channel.first; /* moatd itself was held up */

    takeover_end_silent(worker->takeover, syncs->begun_first);
    if (is_silent(worker, syncs->begun_first) && !unsent)
        silent_kill(worker);
    if (!worker_has_synced(worker, syncs->begun_number))
        begun_watch(worker);
}

uint64_t worker_sync_begin(struct worker *worker)
{
    struct syncs *syncs = &worker->syncs;

    sync_send(worker);
    takeover_sync_start(worker->takeover, syncs->sent);
    syncs->begun_number = syncs->sent;
    if (!loop_timer_is_active(syncs->begun_timer))
        begun_watch(worker);
    return syncs->begun_number;
}

bool worker_has_synced(struct worker *worker, uint64_t number)
{
    return !is_silent(worker, number) && worker->syncs.answered >= number &&
           takeover_has_synced(worker->takeover, number);
}

bool worker_answers(struct worker *worker, unsigned timeout_ms)
{
    if (!channel_is_open(&worker->channel) || is_late(worker))
        return false;
    sync_send(worker);
    return own_sync_wait(worker, now_ms() + timeout_ms) == 0 && channel_is_open(&worker->channel);
}

/* ---------------------------------------------------------------- the silent */

static void late_due(void *userdata)
{
    struct worker *worker = userdata;

    if (is_late(worker))
        silent_kill(worker);
}

/* The answer may have come while moatd itself was held up: what is there is read before the
 * verdict. */
static bool ping_is_missing(struct worker *worker)
{
    return now_ms() - worker->syncs.ping_sent_ms >= PING_TIMEOUT_MS &&
           is_silent(worker, worker->syncs.ping_number);
}

static void ping_due(void *userdata)
{
    struct worker *worker = userdata;
    struct syncs *syncs = &worker->syncs;

    if (!channel_is_open(&worker->channel))
        return;
    if (syncs->ping_number > syncs->answered) {
        if (ping_is_missing(worker)) {
            silent_kill(worker);
            return;
        }
    } else {
        sync_send(worker);
        syncs->ping_number = syncs->sent;
        syncs->ping_sent_ms = now_ms();
    }
    loop_timer_start(syncs->ping_timer, PING_INTERVAL_MS);
}

/* ---------------------------------------------------------------- from process to process */

void syncs_start(struct worker *worker)
{
    worker->syncs.ping_number = worker->syncs.late_number = 0;
    loop_timer_start(worker->syncs.ping_timer, PING_INTERVAL_MS);
}

void syncs_end(struct worker *worker)
{
    worker->syncs.answered = worker->syncs.sent;
    loop_timer_stop(worker->syncs.ping_timer);
    loop_timer_stop(worker->syncs.late_timer);
    syncs_tell(worker);
}

static void sync_due(void *userdata)
{
    syncs_tell(userdata);
}

int syncs_init(struct worker *worker)
{
    struct syncs *syncs = &worker->syncs;

    syncs->due = loop_wake_new(worker->loop, sync_due, worker);
    if (!syncs->due)
        return -ENOMEM;
    loop_wake_set_urgent(syncs->due);

    syncs->ping_timer = loop_timer_new(worker->loop, ping_due, worker);
    syncs->late_timer = loop_timer_new(worker->loop, late_due, worker);
    syncs->begun_timer = loop_timer_new(worker->loop, begun_due, worker);
    return syncs->ping_timer && syncs->late_timer && syncs->begun_timer ? 0 : -ENOMEM;
}

void syncs_deinit(struct worker *worker)
{
    loop_wake_free(worker->syncs.due);
    loop_timer_free(worker->syncs.ping_timer);
    loop_timer_free(worker->syncs.late_timer);
    loop_timer_free(worker->syncs.begun_timer);
}
