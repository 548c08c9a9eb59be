/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One worker is kept running:
 *
 *   running ── the process ends (pidfd) ──> waiting ── at once, or after the back-off ──> running
 *
 * A worker that does not take its messages, or does not answer (sync.c), is killed, and so
 * restarted: `started` sends everything again from what the daemon knows, so nothing of the queue
 * is missed.
 * No signal handler for SIGCHLD is needed: pidfds are watched by the loop.
 *
 * The listener is made once and given to each fresh process; it stays bound here, so that a restart
 * changes nothing in the file system. Former workers (takeover.c) are no children of ours: they are
 * known by their connection. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "worker/spawn.h"
#include "worker/supervised.h"
#include "worker/takeover.h"
#include "worker/worker.h"

#define QUEUE_BYTES_MAX (64u << 20) /* a worker that is behind by more is restarted */
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000
#define HEALTHY_AFTER_MS 10000 /* a worker that lived so long starts the back-off anew */
#define END_TIMEOUT_MS 2000
#define BETWEEN_MAX 64 /* messages that are read in the middle of something else */
#define INBOX_MAX 1024 /* messages; a worker that is not ours any more may send what it likes */

/* A message that came while worker_sync waited, or from a former worker: delivered from the loop.
 */
struct inbox_item {
    struct inbox_item *next;
    bool draining; /* of a former worker */
    uint16_t type;
    size_t length;
    _Alignas(16) unsigned char payload[];
};

static int worker_start(struct worker *worker, struct error *error);
static void channel_ready(void *userdata, unsigned events);
static void channel_ready_between(void *userdata, unsigned events);
static void process_ended(void *userdata, unsigned events);

/* ---------------------------------------------------------------- process */

static int process_fork(struct worker *worker, int control_fd, struct error *error)
{
    return spawn_worker(worker->kind, worker->environment, worker->listener_fd, control_fd,
                        &worker->pid, &worker->pidfd, error);
}

static int settings_send(struct worker *worker)
{
    return channel_send(&worker->channel, WORKER_SETTINGS, &worker->settings,
                        sizeof(worker->settings), NULL, 0);
}

static void process_forget(struct worker *worker)
{
    loop_io_free(worker->pidfd_io);
    worker->pidfd_io = NULL;
    if (worker->pidfd >= 0)
        close(worker->pidfd);
    worker->pidfd = -1;
    worker->pid = 0;
}

static void channel_drop(struct worker *worker)
{
    loop_io_free(worker->channel_io);
    worker->channel_io = NULL;
    channel_deinit(&worker->channel);
}

static void process_kill(struct worker *worker)
{
    if (worker->pidfd >= 0)
        pidfd_send_signal(worker->pidfd, SIGKILL, NULL, 0);
}

static int process_watch(struct worker *worker, struct error *error)
{
    worker->channel_io =
        loop_io_new(worker->loop, worker->channel.fd, LOOP_READ, channel_ready, worker);
    worker->pidfd_io = loop_io_new(worker->loop, worker->pidfd, LOOP_READ, process_ended, worker);
    if (!worker->channel_io || !worker->pidfd_io)
        return error_set(error, ENOMEM, "cannot watch the %s worker", worker->kind);
    if (worker->ops->synced)
        loop_io_set_urgent(worker->channel_io, channel_ready_between);
    return 0;
}

/* A process, its channel and its watches, or nothing of it. */
static int worker_start(struct worker *worker, struct error *error)
{
    int pair[2];
    int code;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set(error, errno, "cannot make a channel to the %s worker", worker->kind);
    channel_init(&worker->channel, pair[0]);
    code = settings_send(worker);
    if (code < 0)
        error_set(error, code, "cannot send to the %s worker", worker->kind);
    else
        code = process_fork(worker, pair[1], error);
    close(pair[1]);
    if (code == 0)
        code = process_watch(worker, error);
    if (code < 0) {
        process_kill(worker);
        if (worker->pidfd >= 0)
            waitid(P_PIDFD, (id_t)worker->pidfd, &(siginfo_t){0}, WEXITED);
        process_forget(worker);
        channel_drop(worker);
        return code;
    }
    worker->started_ms = loop_now_ms(worker->loop);
    syncs_start(worker);
    return 0;
}

/* ---------------------------------------------------------------- restart */

static uint64_t backoff_ms(const struct worker *worker)
{
    unsigned shift = worker->failures < 7 ? worker->failures : 7;
    uint64_t delay = shift ? (uint64_t)BACKOFF_FIRST_MS << (shift - 1) : 0;

    return delay < BACKOFF_MAX_MS ? delay : BACKOFF_MAX_MS;
}

static void restart_later(struct worker *worker)
{
    loop_timer_start(worker->restart_timer, backoff_ms(worker));
    worker->failures++;
}

static void restart_due(void *userdata)
{
    struct worker *worker = userdata;
    struct error error = ERROR_INIT;

    if (worker_start(worker, &error) < 0) {
        log_error("%s", error.text);
        restart_later(worker);
        return;
    }
    log_info("the %s worker runs again (pid %d)", worker->kind, (int)worker->pid);
    worker->ops->started(worker->userdata);
}

static void process_report(const struct worker *worker, const siginfo_t *info)
{
    const char *abbreviation = sigabbrev_np(info->si_status);

    if (!info->si_pid)
        log_error("the %s worker (pid %d) ended: restarting it", worker->kind, (int)worker->pid);
    else if (info->si_code == CLD_EXITED)
        log_error("the %s worker (pid %d) ended with status %d: restarting it", worker->kind,
                  (int)worker->pid, info->si_status);
    else
        log_error("the %s worker (pid %d) was killed by SIG%s: restarting it", worker->kind,
                  (int)worker->pid, abbreviation ? abbreviation : "?");
}

static void inbox_clear(struct worker *worker)
{
    while (worker->inbox) {
        struct inbox_item *item = worker->inbox;

        worker->inbox = item->next;
        free(item);
    }
    worker->inbox_last = &worker->inbox;
    worker->n_inbox = 0;
}

static void process_ended(void *userdata, unsigned events)
{
    struct worker *worker = userdata;
    siginfo_t info = {0};

    (void)events;
    /* An error means that somebody else has reaped it. */
    if (waitid(P_PIDFD, (id_t)worker->pidfd, &info, WEXITED | WNOHANG) == 0 && !info.si_pid)
        return;
    process_report(worker, &info);
    if (loop_now_ms(worker->loop) - worker->started_ms >= HEALTHY_AFTER_MS)
        worker->failures = 0;
    process_forget(worker);
    channel_drop(worker);
    inbox_clear(worker);
    syncs_end(worker);
    restart_later(worker);
}

/* ---------------------------------------------------------------- messages */

void supervised_watch(struct worker *worker)
{
    if (worker->channel_io)
        loop_io_set_events(worker->channel_io,
                           LOOP_READ | (worker->channel.first ? LOOP_WRITE : 0u));
}

/* Whatever is wrong with a channel, a new process is the remedy: its end is seen by the pidfd. */
void supervised_fail(struct worker *worker)
{
    channel_drop(worker);
    process_kill(worker);
}

bool supervised_take(struct worker *worker, struct channel_message *message)
{
    int code = channel_receive(&worker->channel, message);

    if (code == 1) {
        channel_message_close_fds(message);
        return true;
    }
    if (code != -EAGAIN)
        supervised_fail(worker);
    return false;
}

static void channel_read(struct worker *worker)
{
    struct channel_message *message = worker->message;

    /* One message a call keeps the loop fair; the watch is level-triggered. */
    if (!supervised_take(worker, message))
        return;
    if (message->header.type == WORKER_SYNC) {
        syncs_answered(worker, message);
        syncs_tell(worker);
    } else if (message->header.type >= WORKER_FIRST_OWN) {
        worker->ops->message(worker->userdata, message->header.type, message->payload,
                             message->header.length);
    }
}

static void channel_ready(void *userdata, unsigned events)
{
    struct worker *worker = userdata;

    if (events & LOOP_WRITE) {
        int code = channel_flush(&worker->channel);

        if (code < 0 && code != -EAGAIN) {
            supervised_fail(worker);
            return;
        }
        supervised_watch(worker);
    }
    /* Messages that came earlier are delivered first. */
    if ((events & LOOP_READ) && !worker->inbox)
        channel_read(worker);
}

/* In the middle of something else: answers to questions are told of, messages wait. */
static void channel_ready_between(void *userdata, unsigned events)
{
    struct worker *worker = userdata;
    struct channel_message *message;
    bool answered = false;
    unsigned count = 0;

    (void)events;
    message = malloc(sizeof(*message)); /* the other buffer may be in use */
    while (count < BETWEEN_MAX && message && channel_is_open(&worker->channel) &&
           supervised_take(worker, message)) {
        count++;
        if (message->header.type >= WORKER_FIRST_OWN)
            supervised_inbox_add(worker, message, false);
        if (message->header.type != WORKER_SYNC)
            continue;
        syncs_answered(worker, message);
        answered = true;
    }
    free(message);
    if (count == BETWEEN_MAX && worker->channel_io)
        loop_io_again(worker->channel_io);
    if (answered)
        syncs_tell(worker);
}

static void inbox_deliver(void *userdata)
{
    struct worker *worker = userdata;
    struct inbox_item *items = worker->inbox;

    worker->inbox = NULL;
    worker->inbox_last = &worker->inbox;
    worker->n_inbox = 0;
    while (items) {
        struct inbox_item *item = items;

        items = item->next;
        if (!item->draining)
            worker->ops->message(worker->userdata, item->type, item->payload, item->length);
        else if (worker->ops->message_draining)
            worker->ops->message_draining(worker->userdata, item->type, item->payload,
                                          item->length);
        free(item);
    }
}

void supervised_inbox_add(struct worker *worker, const struct channel_message *message,
                          bool draining)
{
    struct inbox_item *item =
        worker->n_inbox < INBOX_MAX ? calloc(1, sizeof(*item) + message->header.length) : NULL;

    if (!item) {
        log_warning("too many messages, or no memory: one of the %s worker is lost", worker->kind);
        return;
    }
    worker->n_inbox++;
    item->draining = draining;
    item->type = message->header.type;
    item->length = message->header.length;
    memcpy(item->payload, message->payload, item->length);
    *worker->inbox_last = item;
    worker->inbox_last = &item->next;
    loop_timer_start(worker->inbox_timer, 0);
}

static void former_synced(void *userdata)
{
    syncs_tell_later(userdata);
}

static void former_said(void *userdata, const struct channel_message *message)
{
    supervised_inbox_add(userdata, message, true);
}

int worker_send(struct worker *worker, uint16_t type, const void *payload, size_t length,
                const int *fds, size_t n_fds, struct error *error)
{
    int code;

    if (!channel_is_open(&worker->channel))
        return 0;
    code = channel_send(&worker->channel, type, payload, length, fds, n_fds);
    if (code == -EMFILE || code == -ENFILE || code == -ENOMEM) {
        error_set_reason(error, REASON_QUOTA, "the %s worker can't be told: %s", worker->kind,
                         strerror(-code));
        return -EREMOTEIO;
    }
    if (code == -EMSGSIZE || code == -EBADF)
        return error_set(error, code, "cannot send to the %s worker", worker->kind);
    if (code < 0) {
        supervised_fail(worker);
        return 0;
    }
    if (worker->channel.queued_bytes > QUEUE_BYTES_MAX) {
        log_error("the %s worker does not take its messages: killing it", worker->kind);
        supervised_fail(worker);
        return 0;
    }
    supervised_watch(worker);
    return 0;
}

void worker_tell(struct worker *worker, uint16_t type, const void *payload, size_t length)
{
    struct error error = ERROR_INIT;

    if (worker_send(worker, type, payload, length, NULL, 0, &error) < 0) {
        log_error("%s: ending it", error.text);
        supervised_fail(worker);
    }
}

void worker_send_draining(struct worker *worker, uint16_t type, const void *payload, size_t length)
{
    takeover_send(worker->takeover, type, payload, length);
}

/* ---------------------------------------------------------------- life */

static bool kind_is_valid(const char *kind)
{
    if (!*kind || strlen(kind) > 16)
        return false;
    for (; *kind; kind++) {
        if (!islower((unsigned char)*kind))
            return false;
    }
    return true;
}

static int parts_make(struct worker *worker, const struct worker_config *config,
                      struct error *error)
{
    worker->kind = strdup(config->kind);
    worker->environment = spawn_environment_new();
    worker->message = malloc(sizeof(*worker->message));
    worker->restart_timer = loop_timer_new(config->loop, restart_due, worker);
    worker->inbox_timer = loop_timer_new(config->loop, inbox_deliver, worker);
    if (!worker->kind || !worker->environment || !worker->message || !worker->restart_timer ||
        !worker->inbox_timer || syncs_init(worker) < 0)
        return error_set(error, ENOMEM, "cannot make the %s worker", config->kind);
    worker->run_dir_fd = open(config->run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (worker->run_dir_fd < 0)
        return error_set(error, errno, "cannot open %s", config->run_dir);
    return 0;
}

static void worker_deinit(struct worker *worker)
{
    process_forget(worker);
    channel_drop(worker);
    inbox_clear(worker);
    loop_timer_free(worker->restart_timer);
    loop_timer_free(worker->inbox_timer);
    syncs_deinit(worker);
    takeover_free(worker->takeover);
    if (worker->listener_fd >= 0)
        close(worker->listener_fd);
    if (worker->run_dir_fd >= 0)
        close(worker->run_dir_fd);
    free(worker->message);
    free(worker->environment);
    free(worker->kind);
    free(worker);
}

int worker_new(const struct worker_config *config, const struct worker_ops *ops, void *userdata,
               struct worker **ret_worker, struct error *error)
{
    struct takeover_config takeover;
    struct worker *worker;
    int code;

    if (!kind_is_valid(config->kind))
        return error_set(error, EINVAL, "'%s' is no kind of worker", config->kind);
    worker = calloc(1, sizeof(*worker));
    if (!worker)
        return error_set(error, ENOMEM, "cannot make the %s worker", config->kind);
    worker->loop = config->loop;
    worker->ops = ops;
    worker->userdata = userdata;
    worker->run_dir_fd = worker->listener_fd = worker->pidfd = -1;
    worker->inbox_last = &worker->inbox;
    channel_init(&worker->channel, -1);
    worker->settings = (struct worker_settings){
        .uid = config->uid,
        .gid = config->gid,
        .log_level = config->log_level ? (uint32_t)config->log_level : LOG_LEVEL_INFO,
        .without_root = config->without_root};
    code = parts_make(worker, config, error);
    takeover = (struct takeover_config){.loop = config->loop,
                                        .kind = worker->kind,
                                        .run_dir_fd = worker->run_dir_fd,
                                        .uid = config->without_root ? getuid() : config->uid,
                                        .message = former_said,
                                        .synced = former_synced,
                                        .userdata = worker};
    if (code == 0)
        code = takeover_run(&takeover, &worker->takeover, error);
    if (code == 0)
        code = takeover_listener_make(&takeover, &worker->listener_fd, error);
    if (code == 0)
        code = worker_start(worker, error);
    if (code < 0) {
        worker_deinit(worker);
        return code;
    }
    log_debug("the %s worker runs (pid %d)", worker->kind, (int)worker->pid);
    *ret_worker = worker;
    ops->started(userdata);
    return 0;
}

/* What is queued is sent before the channel closes: the worker goes on alone with it. */
static void channel_finish(struct worker *worker)
{
    if (channel_is_open(&worker->channel) && worker->channel.first)
        worker_sync(worker, END_TIMEOUT_MS);
}

static void process_end(struct worker *worker)
{
    siginfo_t info;

    if (worker->pidfd < 0)
        return;
    process_kill(worker);
    while (waitid(P_PIDFD, (id_t)worker->pidfd, &info, WEXITED) < 0 && errno == EINTR)
        ;
}

void worker_free(struct worker *worker, bool keep_running)
{
    if (!worker)
        return;
    if (keep_running) {
        channel_finish(worker);
    } else {
        process_end(worker);
        takeover_end_all(worker->takeover);
    }
    worker_deinit(worker);
}

pid_t worker_pid(const struct worker *worker)
{
    return worker->pid;
}

int worker_inherited_take(struct worker *worker, uint8_t protocol, const struct ip *ip,
                          uint16_t port)
{
    return takeover_take(worker->takeover, protocol, ip, port);
}

void worker_inherited_close(struct worker *worker)
{
    takeover_close(worker->takeover);
}
