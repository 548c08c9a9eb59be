/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One worker is kept running:
 *
 *   running ── the process ends (pidfd) ──> waiting ── at once, or after the back-off ──> running
 *
 * A worker that does not take its messages, or does not answer a ping, is killed, and so restarted:
 * `started` sends everything again from what the daemon knows, so nothing of the queue is missed.
 * One that somebody waited for in vain is not waited for again: it delays the loop once.
 * No signal handler for SIGCHLD is needed: pidfds are watched by the loop.
 *
 * The listener is made once and given to each fresh process; it stays bound here, so that a restart
 * changes nothing in the file system. Former workers (takeover.c) are no children of ours: they are
 * known by their connection. */
#include "worker/supervisor.h"

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
#include "worker/channel.h"
#include "worker/spawn.h"
#include "worker/takeover.h"
#include "worker/worker.h"

#define QUEUE_BYTES_MAX (64u << 20) /* a worker that is behind by more is restarted */
#define PING_INTERVAL_MS 2000
#define PING_TIMEOUT_MS 5000
#define LATE_TIMEOUT_MS 1000 /* for one that somebody waited for in vain */
#define KILL_TIMEOUT_MS 1000
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000
#define HEALTHY_AFTER_MS 10000 /* a worker that lived so long starts the back-off anew */
#define END_TIMEOUT_MS 2000
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

struct worker {
    struct loop *loop;
    char *kind;
    char **environment;
    int run_dir_fd;
    int listener_fd;
    struct worker_settings settings;
    const struct worker_ops *ops;
    void *userdata;

    pid_t pid; /* 0: waiting to be restarted */
    int pidfd;
    struct loop_io *pidfd_io;
    struct channel channel;
    struct loop_io *channel_io;
    uint64_t started_ms;
    unsigned failures; /* restarts in a row without a healthy time between */
    struct loop_timer *restart_timer;

    uint64_t sync_sent; /* goes on from one process to the next */
    uint64_t sync_answered;
    struct loop_timer *ping_timer;
    uint64_t ping_number; /* the sync that the last ping was; 0: none */
    uint64_t ping_sent_ms;
    struct loop_timer *late_timer;
    uint64_t late_number;  /* the sync that was waited for in vain; 0: none */
    uint64_t begun_number; /* the last of worker_sync_begin */
    uint64_t begun_first;  /* the one that must be answered when begun_timer is due */
    uint64_t given_up;     /* up to here nobody waits any more */
    unsigned begun_timeout_ms;
    struct loop_timer *begun_timer;

    struct inbox_item *inbox;
    struct inbox_item **inbox_last;
    size_t n_inbox;
    struct loop_timer *inbox_timer;
    bool synced_untold;              /* `synced` is due, by inbox_timer */
    struct channel_message *message; /* buffer for what is received */
    struct takeover *takeover;
};

static int worker_start(struct worker *worker, struct error *error);
static void channel_ready(void *userdata, unsigned events);
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
    worker->ping_number = worker->late_number = 0;
    loop_timer_start(worker->ping_timer, PING_INTERVAL_MS);
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

static void synced_tell(struct worker *worker)
{
    worker->synced_untold = false;
    if (worker->ops->synced)
        worker->ops->synced(worker->userdata);
}

/* Nobody waits for the answers of a process that is gone. */
static void syncs_end(struct worker *worker)
{
    worker->sync_answered = worker->sync_sent;
    loop_timer_stop(worker->late_timer);
    loop_timer_stop(worker->begun_timer);
    synced_tell(worker);
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
    loop_timer_stop(worker->ping_timer);
    syncs_end(worker);
    restart_later(worker);
}

/* ---------------------------------------------------------------- messages */

static void channel_watch(struct worker *worker)
{
    if (worker->channel_io)
        loop_io_set_events(worker->channel_io,
                           LOOP_READ | (worker->channel.first ? LOOP_WRITE : 0u));
}

/* Whatever is wrong with a channel, a new process is the remedy: its end is seen by the pidfd. */
static void channel_failed(struct worker *worker)
{
    channel_drop(worker);
    process_kill(worker);
}

static void sync_answered(struct worker *worker, const void *payload, size_t length)
{
    struct worker_sync sync;

    if (length != sizeof(sync))
        return;
    memcpy(&sync, payload, sizeof(sync));
    if (sync.number > worker->sync_answered && sync.number <= worker->sync_sent)
        worker->sync_answered = sync.number;
}

/* Returns false at the end of what there is, or of the channel. */
static bool channel_take(struct worker *worker, struct channel_message *message)
{
    int code = channel_receive(&worker->channel, message);

    if (code == 1) {
        channel_message_close_fds(message);
        return true;
    }
    if (code != -EAGAIN)
        channel_failed(worker);
    return false;
}

static void channel_read(struct worker *worker)
{
    struct channel_message *message = worker->message;

    /* One message a call keeps the loop fair; the watch is level-triggered. */
    if (!channel_take(worker, message))
        return;
    if (message->header.type == WORKER_SYNC) {
        sync_answered(worker, message->payload, message->header.length);
        synced_tell(worker);
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
            channel_failed(worker);
            return;
        }
        channel_watch(worker);
    }
    /* Messages that came earlier are delivered first. */
    if ((events & LOOP_READ) && !worker->inbox)
        channel_read(worker);
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
    if (worker->synced_untold)
        synced_tell(worker);
}

static void inbox_add(struct worker *worker, const struct channel_message *message, bool draining)
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

static void former_said(void *userdata, const struct channel_message *message)
{
    inbox_add(userdata, message, true);
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
        channel_failed(worker);
        return 0;
    }
    if (worker->channel.queued_bytes > QUEUE_BYTES_MAX) {
        log_error("the %s worker does not take its messages: killing it", worker->kind);
        channel_failed(worker);
        return 0;
    }
    channel_watch(worker);
    return 0;
}

void worker_send_draining(struct worker *worker, uint16_t type, const void *payload, size_t length)
{
    takeover_send(worker->takeover, type, payload, length);
}

/* ---------------------------------------------------------------- sync, ping */

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int sync_send(struct worker *worker)
{
    struct worker_sync sync = {.number = worker->sync_sent + 1};
    struct error error = ERROR_INIT;
    int code = worker_send(worker, WORKER_SYNC, &sync, sizeof(sync), NULL, 0, &error);

    if (code == 0)
        worker->sync_sent++;
    return code;
}

/* Whoever waits for it from the loop hears of it from the loop. */
static void sync_answered_early(struct worker *worker, const struct channel_message *message)
{
    sync_answered(worker, message->payload, message->header.length);
    worker->synced_untold = true;
    loop_timer_start(worker->inbox_timer, 0);
}

/* Reads until the answer is there. While it waits, the queue goes out. */
static int sync_wait(struct worker *worker, uint64_t number, uint64_t deadline_ms,
                     struct channel_message *message)
{
    while (channel_is_open(&worker->channel) && worker->sync_answered < number) {
        struct pollfd channel = {.fd = worker->channel.fd, .events = POLLIN};
        uint64_t now = now_ms();
        int code;

        while (channel_is_open(&worker->channel) && channel_take(worker, message)) {
            if (message->header.type == WORKER_SYNC)
                sync_answered_early(worker, message);
            else if (message->header.type >= WORKER_FIRST_OWN)
                inbox_add(worker, message, false);
        }
        if (!channel_is_open(&worker->channel) || worker->sync_answered >= number)
            break;
        code = channel_flush(&worker->channel);
        if (code < 0 && code != -EAGAIN) {
            channel_failed(worker);
            break;
        }
        if (now >= deadline_ms)
            return -ETIMEDOUT;
        channel.events = (short)(POLLIN | (code == -EAGAIN ? POLLOUT : 0));
        poll(&channel, 1, (int)(deadline_ms - now));
    }
    channel_watch(worker);
    return 0;
}

/* Not into the loop's own buffer: this may be called while a message in it is being handled. */
static int sync_wait_new_buffer(struct worker *worker, uint64_t number, uint64_t deadline_ms)
{
    _cleanup_free_ struct channel_message *message = malloc(sizeof(*message));

    return message ? sync_wait(worker, number, deadline_ms, message) : -ENOMEM;
}

/* Was it waited for in vain, and has not answered since? */
static bool worker_is_late(struct worker *worker)
{
    return channel_is_open(&worker->channel) && worker->late_number > worker->sync_answered &&
           sync_wait_new_buffer(worker, worker->late_number, 0) == -ETIMEDOUT;
}

static void late_since(struct worker *worker, uint64_t number)
{
    worker->late_number = number;
    loop_timer_start(worker->late_timer, LATE_TIMEOUT_MS);
}

static int own_sync_wait(struct worker *worker, uint64_t deadline_ms)
{
    int code = sync_wait_new_buffer(worker, worker->sync_sent, deadline_ms);

    if (code == -ETIMEDOUT)
        late_since(worker, worker->sync_sent);
    return code;
}

int worker_sync(struct worker *worker, unsigned timeout_ms)
{
    uint64_t deadline_ms = now_ms() + timeout_ms;
    int code = 0;
    int draining;

    if (worker_is_late(worker))
        code = -ETIMEDOUT;
    else if (channel_is_open(&worker->channel))
        code = sync_send(worker);
    takeover_sync_start(worker->takeover);
    if (code == 0)
        code = own_sync_wait(worker, deadline_ms);
    draining = takeover_sync_wait(worker->takeover, deadline_ms);
    return code < 0 ? code : draining;
}

static void begun_watch(struct worker *worker)
{
    worker->begun_first = worker->begun_number;
    loop_timer_start(worker->begun_timer, worker->begun_timeout_ms);
}

/* The answer may be there and not read yet. */
static void begun_due(void *userdata)
{
    struct worker *worker = userdata;

    if (!channel_is_open(&worker->channel))
        return;
    if (sync_wait_new_buffer(worker, worker->begun_first, 0) == -ETIMEDOUT) {
        late_since(worker, worker->sync_sent);
        worker->given_up = worker->sync_sent;
        synced_tell(worker);
    } else if (worker->begun_number > worker->sync_answered) {
        begun_watch(worker);
    }
}

uint64_t worker_sync_begin(struct worker *worker, unsigned timeout_ms)
{
    if (takeover_is_draining(worker->takeover)) {
        worker_sync(worker, timeout_ms);
        worker->given_up = worker->sync_sent;
        return worker->sync_sent;
    }
    if (worker_is_late(worker) || !channel_is_open(&worker->channel) || sync_send(worker) < 0)
        return worker->given_up = worker->sync_sent;
    worker->begun_number = worker->sync_sent;
    worker->begun_timeout_ms = timeout_ms;
    if (!loop_timer_is_active(worker->begun_timer))
        begun_watch(worker);
    return worker->begun_number;
}

bool worker_has_synced(struct worker *worker, uint64_t number)
{
    if (worker->sync_answered < number && worker->given_up < number &&
        channel_is_open(&worker->channel))
        (void)sync_wait_new_buffer(worker, number, 0); /* it may be there already */
    return worker->sync_answered >= number || worker->given_up >= number;
}

bool worker_answers(struct worker *worker, unsigned timeout_ms)
{
    return channel_is_open(&worker->channel) && !worker_is_late(worker) && sync_send(worker) == 0 &&
           own_sync_wait(worker, now_ms() + timeout_ms) == 0 && channel_is_open(&worker->channel);
}

static void unanswering_kill(struct worker *worker)
{
    log_error("the %s worker (pid %d) does not answer: killing it", worker->kind, (int)worker->pid);
    channel_failed(worker);
}

static void late_due(void *userdata)
{
    struct worker *worker = userdata;

    if (worker_is_late(worker))
        unanswering_kill(worker);
}

bool worker_end_late(struct worker *worker)
{
    struct pollfd process = {.fd = worker->pidfd, .events = POLLIN};

    if (!worker_is_late(worker))
        return false;
    unanswering_kill(worker);
    return poll(&process, 1, KILL_TIMEOUT_MS) == 1;
}

/* The answer may have come while moatd itself was held up: what is there is read before the
 * verdict. */
static bool ping_is_missing(struct worker *worker)
{
    return now_ms() - worker->ping_sent_ms >= PING_TIMEOUT_MS &&
           sync_wait_new_buffer(worker, worker->ping_number, 0) == -ETIMEDOUT;
}

static void ping_due(void *userdata)
{
    struct worker *worker = userdata;

    if (!channel_is_open(&worker->channel))
        return;
    if (worker->ping_number > worker->sync_answered) {
        if (ping_is_missing(worker)) {
            unanswering_kill(worker);
            return;
        }
    } else if (sync_send(worker) == 0) {
        worker->ping_number = worker->sync_sent;
        worker->ping_sent_ms = now_ms();
    }
    loop_timer_start(worker->ping_timer, PING_INTERVAL_MS);
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
    worker->ping_timer = loop_timer_new(config->loop, ping_due, worker);
    worker->inbox_timer = loop_timer_new(config->loop, inbox_deliver, worker);
    worker->late_timer = loop_timer_new(config->loop, late_due, worker);
    worker->begun_timer = loop_timer_new(config->loop, begun_due, worker);
    if (!worker->kind || !worker->environment || !worker->message || !worker->restart_timer ||
        !worker->ping_timer || !worker->inbox_timer || !worker->late_timer || !worker->begun_timer)
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
    loop_timer_free(worker->ping_timer);
    loop_timer_free(worker->inbox_timer);
    loop_timer_free(worker->late_timer);
    loop_timer_free(worker->begun_timer);
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
