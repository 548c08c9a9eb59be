/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The name worker's process: its loop, its channel to moatd, and the report of what it has done. */
#include <poll.h>
#include <string.h>

#include "base/log.h"
#include "base/loop.h"
#include "worker/dns_control.h"
#include "worker/runtime.h"

#define REPORT_INTERVAL_MS 1000
#define SYNC_WAIT_MS 20 /* how long queries wait for what moatd has announced */

struct dns_worker {
    struct worker_runtime *runtime;
    struct loop *loop;
    struct loop_io *channel;
    struct loop_timer *timer;
    struct dns_control *control;
    struct dns_stats_message reported;
};

static void message_arrived(void *userdata, uint16_t type, const void *payload, size_t length,
                            int *fds, size_t n_fds)
{
    struct dns_worker *worker = userdata;

    dns_control_message(worker->control, type, payload, length, fds, n_fds);
}

static void sockets_wanted(void *userdata, struct worker_handover *handover)
{
    dns_control_hand_over(((struct dns_worker *)userdata)->control, handover);
}

static void report_start(void *userdata)
{
    struct dns_worker *worker = userdata;

    if (!loop_timer_is_active(worker->timer))
        loop_timer_start(worker->timer, REPORT_INTERVAL_MS);
}

/* The timer sees when the last answer that is due has gone. */
static void drain_wanted(void *userdata)
{
    struct dns_worker *worker = userdata;

    dns_control_drain(worker->control);
    report_start(worker);
}

static bool serves(void *userdata)
{
    return dns_control_serves(((struct dns_worker *)userdata)->control);
}

static const struct worker_kind_ops ops = {
    .message = message_arrived,
    .sockets = sockets_wanted,
    .drain = drain_wanted,
    .serves = serves,
};

static void stop_if_done(struct dns_worker *worker)
{
    if (worker_runtime_is_done(worker->runtime))
        loop_stop(worker->loop);
}

static void channel_ready(void *userdata, unsigned events)
{
    struct dns_worker *worker = userdata;

    (void)events;
    worker_runtime_handle(worker->runtime);
    stop_if_done(worker);
}

static void channel_receive(void *userdata)
{
    worker_runtime_handle(((struct dns_worker *)userdata)->runtime);
}

static void channel_wait(void *userdata)
{
    struct dns_worker *worker = userdata;
    struct pollfd channel = {.fd = worker_runtime_fd(worker->runtime), .events = POLLIN};

    (void)poll(&channel, 1, SYNC_WAIT_MS);
}

static int channel_send_own(void *userdata, uint16_t type, const void *payload, size_t length)
{
    return worker_runtime_send(((struct dns_worker *)userdata)->runtime, type, payload, length);
}

/* Runs while there is something to report, so that an idle worker sleeps. */
static void timer_expired(void *userdata)
{
    struct dns_worker *worker = userdata;
    struct dns_stats_message stats;

    dns_control_stats(worker->control, &stats);
    if (memcmp(&stats, &worker->reported, sizeof(stats)) != 0 ||
        worker_runtime_is_draining(worker->runtime))
        report_start(worker);
    if (memcmp(&stats, &worker->reported, sizeof(stats)) != 0 &&
        worker_runtime_send(worker->runtime, DNS_MESSAGE_STATS, &stats, sizeof(stats)) == 0)
        worker->reported = stats;
    stop_if_done(worker);
}

static bool worker_init(struct dns_worker *worker)
{
    struct error error = ERROR_INIT;

    if (loop_new(&worker->loop, &error) < 0) {
        log_error("%s", error.text);
        return false;
    }
    worker->control = dns_control_new(&(struct dns_control_config){
        .loop = worker->loop,
        .port = DNS_PORT,
        .receive = channel_receive,
        .wait = channel_wait,
        .active = report_start,
        .send = channel_send_own,
        .userdata = worker,
    });
    worker->channel = loop_io_new(worker->loop, worker_runtime_fd(worker->runtime), LOOP_READ,
                                  channel_ready, worker);
    worker->timer = loop_timer_new(worker->loop, timer_expired, worker);
    if (worker->control && worker->channel && worker->timer)
        return true;
    log_error("the name worker can't start: out of memory");
    return false;
}

static void worker_deinit(struct dns_worker *worker)
{
    loop_timer_free(worker->timer);
    loop_io_free(worker->channel);
    dns_control_free(worker->control);
    loop_free(worker->loop);
}

int dns_worker_run(struct worker_runtime *runtime)
{
    struct dns_worker worker = {.runtime = runtime};
    bool started = worker_init(&worker);

    if (started) {
        worker_runtime_start(runtime, &ops, &worker);
        loop_run(worker.loop);
    }
    worker_deinit(&worker);
    return started ? 0 : 1;
}
