/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A former worker is known by its socket file: worker-KIND.sock while it is an orphan,
 * worker-KIND.PID.sock as soon as a moatd has taken its sockets. Renaming the file does not touch
 * the listener. The connection names the process: SO_PEERCRED of a connected socket holds who
 * called listen(2) last, which is the worker. Its pid is good for as long as the connection is not
 * hung up, since only that process holds the other end. */
#include "worker/takeover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "base/log.h"
#include "worker/channel.h"
#include "worker/stray.h"
#include "worker/worker.h"

#define ANSWER_TIMEOUT_MS 1000 /* of silence */
#define KILL_TIMEOUT_MS 1000
#define END_TIMEOUT_MS 20
#define LATE_TIMEOUT_MS 1000 /* for one that somebody waited for in vain */
#define CONNECT_INTERVAL_MS 2
#define MESSAGES_MAX 64 /* taken from one worker in one turn */
#define FILE_NAME_MAX 64

struct former {
    struct former *next;
    struct takeover *takeover;
    struct channel channel;
    struct loop_io *io;
    pid_t pid;
    int pidfd;
    char file[FILE_NAME_MAX];
    uint64_t sync_sent;
    uint64_t sync_answered;
    uint64_t late_number;   /* the sync that was waited for in vain; 0: none */
    uint64_t late_since_ms; /* when */
};

struct inherited {
    struct worker_socket key;
    int fd; /* -1: taken */
};

struct takeover {
    struct loop *loop;
    const char *kind;
    int run_dir_fd;
    uid_t uid;
    struct former *formers;
    struct inherited *sockets; /* sorted by key */
    size_t n_sockets;
    size_t sockets_size;
    struct channel_message *message;
    void (*on_message)(void *userdata, const struct channel_message *message);
    void (*synced)(void *userdata);
    void *userdata;
};

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---------------------------------------------------------------- socket files */

/* Through /proc/self/fd, since the path of the run directory may be longer than sun_path. */
static socklen_t file_address(int run_dir_fd, const char *file, struct sockaddr_un *ret_address)
{
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "/proc/self/fd/%d/%s",
             run_dir_fd, file);
    return sizeof(*ret_address);
}

/* "worker-KIND.sock" or "worker-KIND.PID.sock" */
static bool file_is_of_kind(const char *file, const char *kind)
{
    static const char prefix[] = "worker-";
    size_t length = strlen(kind);

    if (strlen(file) >= FILE_NAME_MAX || strncmp(file, prefix, sizeof(prefix) - 1) != 0)
        return false;
    file += sizeof(prefix) - 1;
    if (strncmp(file, kind, length) != 0)
        return false;
    file += length;
    if (*file == '.' && file[1] >= '0' && file[1] <= '9')
        file += 1 + strspn(file + 1, "0123456789");
    return strcmp(file, ".sock") == 0;
}

static void file_remove(const struct takeover *takeover, const char *file)
{
    if (unlinkat(takeover->run_dir_fd, file, 0) < 0 && errno != ENOENT)
        log_warning("cannot remove %s: %s", file, strerror(errno));
}

int takeover_listener_make(const struct takeover_config *config, int *ret_fd, struct error *error)
{
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct sockaddr_un address;
    char file[FILE_NAME_MAX];
    socklen_t length;

    snprintf(file, sizeof(file), "worker-%s.sock", config->kind);
    length = file_address(config->run_dir_fd, file, &address);
    unlinkat(config->run_dir_fd, file, 0);
    /* The mode of the socket is that of the file it will be bound to: never open to others. */
    if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 ||
        listen(fd, WORKER_LISTENER_BACKLOG) < 0)
        return error_set(error, errno, "cannot make the socket %s", file);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* ---------------------------------------------------------------- one former worker */

static void former_free(struct former *former)
{
    loop_io_free(former->io);
    channel_deinit(&former->channel);
    if (former->pidfd >= 0)
        close(former->pidfd);
    free(former);
}

static void former_remove(struct former *former)
{
    struct former **link = &former->takeover->formers;

    while (*link != former)
        link = &(*link)->next;
    *link = former->next;
    file_remove(former->takeover, former->file);
    former_free(former);
}

static bool former_is_connected(const struct former *former)
{
    struct pollfd channel = {.fd = former->channel.fd};

    return poll(&channel, 1, 0) == 0;
}

static bool former_is_gone(const struct former *former, int timeout_ms)
{
    struct pollfd process = {.fd = former->pidfd, .events = POLLIN};

    return poll(&process, 1, timeout_ms) == 1;
}

/* Ends the process and waits until it is gone, so that its sockets are free. */
static void former_kill(struct former *former)
{
    if (former->pidfd >= 0 && pidfd_send_signal(former->pidfd, SIGKILL, NULL, 0) == 0)
        (void)former_is_gone(former, KILL_TIMEOUT_MS);
}

/* Who listens there? It must have the worker's uid; the pid is held by a pidfd before anything else
 * happens. -EAGAIN: the one who made the socket, a moatd that ended before its worker was up. */
static int former_identify(struct former *former)
{
    struct ucred credentials;
    socklen_t length = sizeof(credentials);

    if (getsockopt(former->channel.fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return -errno;
    if (credentials.uid != former->takeover->uid || credentials.pid <= 0 ||
        credentials.pid == getpid())
        return -EAGAIN;
    former->pidfd = pidfd_open(credentials.pid, 0);
    if (former->pidfd < 0)
        return errno == ESRCH ? -EAGAIN : -errno;
    former->pid = credentials.pid;
    return former_is_connected(former) ? 0 : -ECONNRESET;
}

static int former_try_connect(struct former *former)
{
    struct sockaddr_un address;
    socklen_t length = file_address(former->takeover->run_dir_fd, former->file, &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    channel_init(&former->channel, fd);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, length) < 0)
        return -errno;
    return former_identify(former);
}

/* A worker that is about to start listens with its own ids as soon as it has them (worker.c). */
static int former_connect(struct former *former)
{
    uint64_t deadline_ms = now_ms() + ANSWER_TIMEOUT_MS;
    int code = former_try_connect(former);

    while (code == -EAGAIN && now_ms() < deadline_ms) {
        channel_deinit(&former->channel);
        poll(NULL, 0, CONNECT_INTERVAL_MS);
        code = former_try_connect(former);
    }
    return code;
}

static int sockets_add(struct takeover *takeover, struct channel_message *message)
{
    size_t count = message->header.length / sizeof(struct worker_socket);

    if (takeover->n_sockets + count > takeover->sockets_size) {
        size_t size = takeover->sockets_size * 2 + WORKER_FDS_MAX;
        struct inherited *sockets = realloc(takeover->sockets, size * sizeof(*sockets));

        if (!sockets)
            return -ENOMEM;
        takeover->sockets = sockets;
        takeover->sockets_size = size;
    }
    for (size_t i = 0; i < count && i < message->n_fds; i++) {
        struct inherited *inherited = &takeover->sockets[takeover->n_sockets++];

        memcpy(&inherited->key, message->payload + i * sizeof(inherited->key),
               sizeof(inherited->key));
        inherited->fd = TAKE_FD(message->fds[i]);
    }
    if (message->fds_lost)
        log_warning("out of descriptors: not all sockets of the former %s worker came over",
                    takeover->kind);
    return 0;
}

/* Returns 1 when the worker is done, 0 when more is to come. */
static int former_receive(struct former *former)
{
    struct channel_message *message = former->takeover->message;
    struct pollfd channel = {.fd = former->channel.fd, .events = POLLIN};
    int code;

    if (poll(&channel, 1, ANSWER_TIMEOUT_MS) == 0)
        return -ETIMEDOUT;
    code = channel_receive(&former->channel, message);
    if (code == 0)
        return -ECONNRESET;
    if (code < 0)
        return code == -EAGAIN ? 0 : code;
    code = 0;
    if (message->header.type == WORKER_SOCKET && message->header.length <= sizeof(message->payload))
        code = sockets_add(former->takeover, message);
    else if (message->header.type == WORKER_DONE)
        code = 1;
    channel_message_close_fds(message);
    return code;
}

static int former_ask(struct former *former)
{
    int code = channel_send(&former->channel, WORKER_TAKEOVER, NULL, 0, NULL, 0);

    while (code == 0)
        code = former_receive(former);
    return code < 0 ? code : 0;
}

static void former_sync_answered(struct former *former, const struct channel_message *message)
{
    struct worker_sync sync;

    if (message->header.type != WORKER_SYNC || message->header.length != sizeof(sync))
        return;
    memcpy(&sync, message->payload, sizeof(sync));
    if (sync.number > former->sync_sent || sync.number < former->sync_answered)
        return;
    former->sync_answered = sync.number;
    former->takeover->synced(former->takeover->userdata);
}

/* False when the worker has ended. Not more than some messages at a time: it may never stop. */
static bool former_read(struct former *former)
{
    struct channel_message *message = former->takeover->message;
    unsigned left = MESSAGES_MAX;
    int code;

    do {
        code = channel_receive(&former->channel, message);
        if (code == 1) {
            channel_message_close_fds(message);
            former_sync_answered(former, message);
            if (message->header.type >= WORKER_FIRST_OWN)
                former->takeover->on_message(former->takeover->userdata, message);
        }
    } while ((code == 1 || code == -EPROTO) && --left > 0);
    return left == 0 || code == -EAGAIN;
}

static void former_ready(void *userdata, unsigned events)
{
    struct former *former = userdata;
    struct takeover *takeover = former->takeover;
    bool alive = true;

    if (events & LOOP_WRITE) {
        alive = channel_flush(&former->channel) != -EPIPE;
        loop_io_set_events(former->io, LOOP_READ | (former->channel.first ? LOOP_WRITE : 0u));
    }
    if (alive && (events & LOOP_READ))
        alive = former_read(former);
    if (!alive) {
        log_debug("the former %s worker (pid %d) is done", takeover->kind, (int)former->pid);
        if (!former_is_gone(former, END_TIMEOUT_MS)) /* it hung up because it ends */
            former_kill(former);
        former_remove(former);
        takeover->synced(takeover->userdata);
    }
}

/* Renamed before the new worker's file is made, so that the two never meet. */
static int former_keep(struct former *former)
{
    struct takeover *takeover = former->takeover;
    char file[FILE_NAME_MAX];

    snprintf(file, sizeof(file), "worker-%s.%d.sock", takeover->kind, (int)former->pid);
    if (renameat(takeover->run_dir_fd, former->file, takeover->run_dir_fd, file) < 0)
        return -errno;
    memcpy(former->file, file, sizeof(file));
    former->io = loop_io_new(takeover->loop, former->channel.fd, LOOP_READ, former_ready, former);
    if (!former->io)
        return -ENOMEM;
    former->next = takeover->formers;
    takeover->formers = former;
    return 0;
}

/* Whatever a former worker does, moatd starts: what it does not hand over is bound anew. */
static int former_take_over(struct takeover *takeover, const char *file)
{
    struct former *former = calloc(1, sizeof(*former));
    size_t before = takeover->n_sockets;
    int code;

    if (!former)
        return -ENOMEM;
    former->takeover = takeover;
    former->pidfd = -1;
    snprintf(former->file, sizeof(former->file), "%s", file);
    code = former_connect(former);
    if (code == 0)
        code = former_ask(former);
    if (code == 0)
        code = former_keep(former);
    if (code == 0) {
        log_info("took %zu sockets over from the former %s worker (pid %d)",
                 takeover->n_sockets - before, takeover->kind, (int)former->pid);
        return 0;
    }
    if (code != -ECONNREFUSED && code != -ENOENT)
        log_warning("cannot take over from the former %s worker (pid %d): %s", takeover->kind,
                    (int)former->pid, strerror(-code));
    former_kill(former);
    file_remove(takeover, former->file);
    former_free(former);
    return 0;
}

/* ---------------------------------------------------------------- all of them */

static int socket_compare(const void *a, const void *b)
{
    const struct inherited *left = a;
    const struct inherited *right = b;

    return memcmp(&left->key, &right->key, sizeof(left->key));
}

/* Names are collected first: files are renamed and removed while they are worked on. */
static int formers_find(struct takeover *takeover, struct strings *ret_files)
{
    int fd = openat(takeover->run_dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int code = 0;

    if (!directory) {
        code = -errno;
        if (fd >= 0)
            close(fd);
        return code;
    }
    while (code == 0 && (entry = readdir(directory))) {
        if (file_is_of_kind(entry->d_name, takeover->kind))
            code = strings_add(ret_files, entry->d_name);
    }
    closedir(directory);
    return code;
}

static bool former_is_known(void *userdata, pid_t pid)
{
    const struct takeover *takeover = userdata;

    for (const struct former *former = takeover->formers; former; former = former->next) {
        if (former->pid == pid)
            return true;
    }
    return false;
}

int takeover_run(const struct takeover_config *config, struct takeover **ret_takeover,
                 struct error *error)
{
    struct takeover *takeover = calloc(1, sizeof(*takeover));
    struct strings files = {0};
    int code = takeover ? 0 : -ENOMEM;

    if (takeover) {
        *takeover = (struct takeover){.loop = config->loop,
                                      .kind = config->kind,
                                      .run_dir_fd = config->run_dir_fd,
                                      .uid = config->uid,
                                      .on_message = config->message,
                                      .synced = config->synced,
                                      .userdata = config->userdata};
        takeover->message = malloc(sizeof(*takeover->message));
        code = takeover->message ? formers_find(takeover, &files) : -ENOMEM;
    }
    for (size_t i = 0; code == 0 && i < files.count; i++)
        code = former_take_over(takeover, files.items[i]);
    strings_deinit(&files);
    if (code < 0) {
        takeover_free(takeover);
        return error_set(error, code, "cannot look for former %s workers", config->kind);
    }
    strays_end(config->kind, former_is_known, takeover);
    if (takeover->n_sockets)
        qsort(takeover->sockets, takeover->n_sockets, sizeof(takeover->sockets[0]), socket_compare);
    *ret_takeover = takeover;
    return 0;
}

void takeover_free(struct takeover *takeover)
{
    if (!takeover)
        return;
    while (takeover->formers) {
        struct former *former = takeover->formers;

        takeover->formers = former->next;
        former_free(former);
    }
    takeover_close(takeover);
    free(takeover->message);
    free(takeover);
}

void takeover_end_all(struct takeover *takeover)
{
    char file[FILE_NAME_MAX];

    if (!takeover)
        return;
    while (takeover->formers) {
        former_kill(takeover->formers);
        former_remove(takeover->formers);
    }
    snprintf(file, sizeof(file), "worker-%s.sock", takeover->kind);
    file_remove(takeover, file);
}

int takeover_take(struct takeover *takeover, uint8_t protocol, const struct ip *ip, uint16_t port)
{
    struct inherited wanted = {.key = {.protocol = protocol, .family = ip->family, .port = port}};
    struct inherited *found;

    if (!takeover || !takeover->n_sockets)
        return -1;
    memcpy(wanted.key.address, ip->bytes, sizeof(wanted.key.address));
    found =
        bsearch(&wanted, takeover->sockets, takeover->n_sockets, sizeof(wanted), socket_compare);
    return found ? TAKE_FD(found->fd) : -1;
}

void takeover_close(struct takeover *takeover)
{
    if (!takeover)
        return;
    for (size_t i = 0; i < takeover->n_sockets; i++) {
        if (takeover->sockets[i].fd >= 0)
            close(takeover->sockets[i].fd);
    }
    free(takeover->sockets);
    takeover->sockets = NULL;
    takeover->n_sockets = takeover->sockets_size = 0;
}

/* One that can't be told any more has no use. */
static void former_send(struct former *former, uint16_t type, const void *payload, size_t length)
{
    if (channel_send(&former->channel, type, payload, length, NULL, 0) < 0)
        former_kill(former);
    else if (former->channel.first)
        loop_io_set_events(former->io, LOOP_READ | LOOP_WRITE);
}

void takeover_send(struct takeover *takeover, uint16_t type, const void *payload, size_t length)
{
    for (struct former *former = takeover ? takeover->formers : NULL; former;
         former = former->next) {
        former_send(former, type, payload, length);
    }
}

void takeover_sync_start(struct takeover *takeover, uint64_t number)
{
    struct worker_sync sync = {.number = number};

    for (struct former *former = takeover ? takeover->formers : NULL; former;
         former = former->next) {
        former_send(former, WORKER_SYNC, &sync, sizeof(sync));
        former->sync_sent = number;
    }
}

static void silent_kill(struct former *former)
{
    log_error("a former %s worker (pid %d) does not answer: killing it", former->takeover->kind,
              (int)former->pid);
    former_kill(former);
}

/* One that did not answer in time is not waited for again, and ended when it stays so. */
static bool former_is_late(struct former *former)
{
    if (former->late_number <= former->sync_answered || !former_read(former) ||
        former->late_number <= former->sync_answered)
        return false;
    if (now_ms() - former->late_since_ms >= LATE_TIMEOUT_MS)
        silent_kill(former);
    return true;
}

/* A worker that ends meanwhile has handled everything; the loop sees its end too. */
static int former_sync_wait(struct former *former, uint64_t deadline_ms)
{
    int left_ms;

    if (former_is_late(former))
        return -ETIMEDOUT;
    while (former_read(former) && former->sync_answered < former->sync_sent) {
        struct pollfd channel = {.fd = former->channel.fd, .events = POLLIN};
        uint64_t now = now_ms();

        if (channel_flush(&former->channel) == -EAGAIN)
            channel.events |= POLLOUT;
        if (now >= deadline_ms) {
            former->late_number = former->sync_sent;
            former->late_since_ms = now;
            return -ETIMEDOUT;
        }
        poll(&channel, 1, (int)(deadline_ms - now));
    }
    if (former->sync_answered >= former->sync_sent)
        return 0;
    left_ms = deadline_ms > now_ms() ? (int)(deadline_ms - now_ms()) : 0;
    return former_is_gone(former, left_ms) ? 0 : -ETIMEDOUT;
}

int takeover_sync_wait(struct takeover *takeover, uint64_t deadline_ms)
{
    int code = 0;

    for (struct former *former = takeover ? takeover->formers : NULL; former; former = former->next)
        if (former_sync_wait(former, deadline_ms) < 0)
            code = -ETIMEDOUT;
    return code;
}

/* A number that it was not asked for comes with the next one that it was. One that has hung up is
 * about to end: until it has, it may hold what it was told to let go. */
static bool former_has_synced(struct former *former, uint64_t number)
{
    uint64_t asked = number < former->sync_sent ? number : former->sync_sent;

    return former->sync_answered >= asked || (!former_read(former) && former_is_gone(former, 0)) ||
           former->sync_answered >= asked;
}

bool takeover_has_synced(struct takeover *takeover, uint64_t number)
{
    for (struct former *former = takeover ? takeover->formers : NULL; former; former = former->next)
        if (!former_has_synced(former, number))
            return false;
    return true;
}

/* The question had not left here, and has now: it has its time from now on. */
static bool former_was_behind(struct former *former)
{
    return former->channel.first && channel_flush(&former->channel) == 0;
}

void takeover_end_silent(struct takeover *takeover, uint64_t number)
{
    for (struct former *former = takeover ? takeover->formers : NULL; former; former = former->next)
        if (!former_has_synced(former, number) && !former_was_behind(former))
            silent_kill(former);
}
