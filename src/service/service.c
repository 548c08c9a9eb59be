/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening and closing: directories and their locks, the store, the kernel's sockets, the workers,
 * the first reconcile. */
#include "service/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

#define LOCK_NAME "moatd.lock"
#define LOCK_WAIT_MS 1000 /* for a holder that is ending */
#define LOCK_GRACE_MS 200 /* for one that may have been killed a moment ago */

static uint64_t monotonic_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t service_uptime_s(const struct service *service)
{
    return (monotonic_ms() - service->started_ms) / 1000;
}

/* --- directories --- */

static int make_directory(const char *path, mode_t mode, bool *ret_made, struct error *error)
{
    bool made = false;

    char copy[4096];

    if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
        return error_set(error, ENAMETOOLONG, "directory %s", path);
    for (char *p = copy + 1;; p++) {
        char end = *p;

        if (end != '/' && end != '\0')
            continue;
        *p = '\0';
        made = mkdir(copy, end ? 0755 : mode) == 0;
        if (!made && errno != EEXIST)
            return error_set(error, errno, "cannot make the directory %s", copy);
        *p = end;
        if (!end)
            break;
    }
    *ret_made = made;
    return 0;
}

static void read_holder(int fd, char *text, size_t size)
{
    ssize_t length = pread(fd, text, size - 1, 0);

    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

/* Does the process run, or is it on its way out (killed a moment ago)? */
static bool holder_runs(const char *pid)
{
    char path[64];
    char text[512];
    _cleanup_close_ int fd = -1;
    ssize_t length;
    const char *after;

    snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    length = read(fd, text, sizeof(text) - 1);
    text[length > 0 ? length : 0] = '\0';
    after = strrchr(text, ')');
    return after && after[1] == ' ' && after[2] != 'Z' && after[2] != 'X';
}

/* A holder that is ending is waited for, LOCK_WAIT_MS at most. 0 or -EWOULDBLOCK with its pid. */
static int take_lock(int fd, char *pid, size_t size)
{
    static const struct timespec pause = {.tv_nsec = 10000000L};

    for (unsigned waited_ms = 0;; waited_ms += 10) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK)
            return -errno;
        read_holder(fd, pid, size);
        if (waited_ms >= LOCK_WAIT_MS || (waited_ms >= LOCK_GRACE_MS && holder_runs(pid)))
            return -EWOULDBLOCK;
        nanosleep(&pause, NULL);
    }
}

static int lock_directory(const char *directory, int *ret_fd, struct error *error)
{
    _cleanup_close_ int fd = -1;
    char path[4096];
    char pid[32];
    int length;
    int r;

    snprintf(path, sizeof(path), "%s/" LOCK_NAME, directory);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(error, errno, "cannot open %s", path);
    r = take_lock(fd, pid, sizeof(pid));
    if (r == -EWOULDBLOCK)
        return error_set_reason(
            error, REASON_IN_USE,
            "another moatd (pid %s) uses %s; stop it, or give other directories", pid, directory);
    if (r < 0)
        return error_set(error, r, "cannot lock %s", path);
    length = snprintf(pid, sizeof(pid), "%d\n", getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)length, 0) != length)
        return error_set(error, errno, "cannot write %s", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int open_directories(struct service *service, struct error *error)
{
    const struct config *config = service->config;
    int r = make_directory(config->state_dir, 0700, &service->made_state_dir, error);

    if (r >= 0)
        r = make_directory(config->run_dir, 0755, &service->made_run_dir, error);
    if (r >= 0)
        r = lock_directory(config->state_dir, &service->lock_fds[0], error);
    if (r >= 0 && strcmp(config->state_dir, config->run_dir) != 0)
        r = lock_directory(config->run_dir, &service->lock_fds[1], error);
    return r;
}

/* Who made a directory is remembered in the store, for a teardown by a later moatd. */
static int remember_directory(struct service *service, const char *setting, bool *made,
                              struct error *error)
{
    _cleanup_free_ char *before = NULL;
    int r = store_setting_get(service->store, setting, &before, error);

    if (r >= 0 && *made && !before)
        r = store_setting_set(service->store, setting, "1", error);
    *made = *made || before;
    return r;
}

void service_remove_directories(struct service *service)
{
    if (service->made_run_dir && rmdir(service->config->run_dir) < 0)
        log_info("%s stays: %s", service->config->run_dir, strerror(errno));
    if (service->made_state_dir && rmdir(service->config->state_dir) < 0)
        log_info("%s stays: %s", service->config->state_dir, strerror(errno));
}

/* --- durability --- */

static void wake_durable(void *userdata)
{
    struct service *service = userdata;

    loop_wake_send(service->durable_wake);
}

static void on_durable(void *userdata)
{
    struct service *service = userdata;

    if (service_has_failed(service)) {
        loop_stop(service->loop);
    } else if (service->on_durable) {
        service->on_durable(service->on_durable_userdata);
    }
}

static int open_store(struct service *service, struct error *error)
{
    int r;

    service->durable_wake = loop_wake_new(service->loop, on_durable, service);
    if (!service->durable_wake)
        return error_set(error, ENOMEM, "service");
    r = store_open(service->config->state_dir, &service->store, error);
    if (r >= 0)
        store_on_durable(service->store, wake_durable, service);
    return r;
}

uint64_t service_promised(const struct service *service)
{
    uint64_t committed = service->store ? store_committed(service->store) : 0;

    return committed == service->waived ? service->waived_for : committed;
}

void promise_waive(struct service *service, uint64_t promised)
{
    if (!service->store)
        return;
    service->waived = store_committed(service->store);
    service->waived_for = promised;
}

bool service_is_durable(const struct service *service, uint64_t commit)
{
    return !service->store || store_is_durable(service->store, commit);
}

void service_on_durable(struct service *service, service_durable_fn fn, void *userdata)
{
    service->on_durable = fn;
    service->on_durable_userdata = userdata;
}

void service_wait_durable(struct service *service)
{
    if (service->store)
        store_wait_durable(service->store);
}

bool service_has_failed(const struct service *service)
{
    return service->store && store_disk_error(service->store) < 0;
}

/* --- layers --- */

static int open_names(struct service *service, uid_t uid, gid_t gid, struct error *error)
{
    const struct config *config = service->config;
    struct names_config names = {
        .loop = service->loop,
        .run_dir = config->run_dir,
        .uid = uid,
        .gid = gid,
        .domain = config->domain,
        .resolv_conf = config->resolv_conf,
        .upstreams = config->upstreams,
        .ttl_s = config->ttl_s,
        .stale_s = config->stale_s,
        .cache_bytes = config->cache_kib * 1024,
        .max_in_flight = config->max_in_flight,
        .max_connections = config->max_connections,
        .rate = config->rate,
        .rebind_guard = config->rebind_guard,
        .resolved = config->resolved,
        .fdstore = config->fdstore,
        .forwards = config->forwards,
        .n_forwards = config->n_forwards,
        .give = domain_give,
        .userdata = service,
    };

    service->domains = domains_new();
    if (!service->domains)
        return error_set(error, ENOMEM, "names");
    return names_new(&names, &service->names, error);
}

static int open_leases(struct service *service, uid_t uid, gid_t gid, struct error *error)
{
    struct leases_config leases = {
        .loop = service->loop,
        .run_dir = service->config->run_dir,
        .uid = uid,
        .gid = gid,
    };

    return leases_new(&leases, &service->leases, error);
}

static int open_reservations(struct service *service, uid_t uid, gid_t gid, struct error *error)
{
    struct reservations_config reservations = {
        .loop = service->loop,
        .run_dir = service->config->run_dir,
        .uid = uid,
        .gid = gid,
    };

    return reservations_new(&reservations, &service->reservations, error);
}

static int identify_host(struct service *service, struct error *error)
{
    _cleanup_close_ int fd = -1;
    int r = netns_open_path("/proc/self/ns/net", &fd, error);

    return r < 0 ? r : netns_identify(fd, &service->netns_dev, &service->netns_ino, error);
}

static int open_layers(struct service *service, struct error *error)
{
    uid_t uid = 0;
    gid_t gid = 0;
    int r = config_worker_ids(service->config, &uid, &gid, error);

    if (r >= 0)
        r = open_store(service, error);
    if (r >= 0)
        r = remember_directory(service, "made/state_dir", &service->made_state_dir, error);
    if (r >= 0)
        r = remember_directory(service, "made/run_dir", &service->made_run_dir, error);
    if (r >= 0)
        r = link_open(&service->link, error);
    if (r >= 0)
        r = link_open_beside(service->link, &service->link_beside, error);
    if (r >= 0)
        r = background_new(service->loop, "links", &service->background, error);
    if (r >= 0)
        r = nat_open(LINK_GROUP_BASE, LINK_GROUP_MASK, &service->nat, error);
    if (r >= 0)
        r = conntrack_open(&service->conntrack, error);
    if (r >= 0)
        r = open_names(service, uid, gid, error);
    if (r >= 0)
        r = open_leases(service, uid, gid, error);
    if (r >= 0)
        r = open_reservations(service, uid, gid, error);
    return r;
}

static int start(struct service *service, struct error *error)
{
    struct error no_default = ERROR_INIT;
    int r = open_directories(service, error);

    if (r >= 0)
        r = identify_host(service, error);
    if (r >= 0)
        r = open_layers(service, error);
    if (r >= 0)
        r = drops_start(service, error);
    if (r >= 0)
        r = watch_start(service, error);
    if (r >= 0)
        r = reconcile_start(service, error);
    if (r < 0)
        return r;
    if (default_network_ensure(service, &no_default) < 0)
        log_error("the network \"" DEFAULT_NETWORK "\": %s", no_default.text);
    service_wait_durable(service);
    return 0;
}

/* A start that came to nothing leaves nothing: locks and directories that it made go again. */
static void forget_directories(struct service *service)
{
    char path[4096];

    for (size_t i = 0; i < ARRAY_SIZE(service->lock_fds); i++) {
        if (service->lock_fds[i] < 0)
            continue;
        snprintf(path, sizeof(path), "%s/" LOCK_NAME,
                 i ? service->config->run_dir : service->config->state_dir);
        (void)unlink(path);
    }
    service_remove_directories(service);
}

int service_new(const struct config *config, struct loop *loop, service_event_fn on_event,
                void *userdata, struct service **ret_service, struct error *error)
{
    struct service *service = calloc(1, sizeof(*service));
    int r;

    if (!service)
        return error_set(error, ENOMEM, "service");
    *service = (struct service){
        .config = config,
        .loop = loop,
        .on_event = on_event,
        .on_event_userdata = userdata,
        .lock_fds = {-1, -1},
        .started_ms = monotonic_ms(),
    };
    r = start(service, error);
    if (r < 0) {
        if (!service->store)
            forget_directories(service);
        service_free(service);
        return r;
    }
    *ret_service = service;
    return 0;
}

void service_settle(struct service *service)
{
    if (service->background)
        background_settle(service->background);
}

void service_close_layers(struct service *service, bool keep_running)
{
    background_free(service->background);
    service->background = NULL;
    watch_stop(service);
    drops_stop(service);
    owner_free_all(service);
    learn_free_all(service);
    inside_free_all(service);
    if (service->names)
        names_free(service->names, keep_running);
    domains_free(service->domains);
    if (service->leases)
        leases_free(service->leases, keep_running);
    if (service->reservations)
        reservations_free(service->reservations, keep_running);
    if (service->conntrack)
        conntrack_close(service->conntrack);
    if (service->nat)
        nat_close(service->nat);
    link_close(service->link_beside);
    link_close(service->link);
    if (service->store)
        store_close(service->store);
    loop_wake_free(service->durable_wake);
    service->durable_wake = NULL;
    service->names = NULL;
    service->domains = NULL;
    service->leases = NULL;
    service->reservations = NULL;
    service->conntrack = NULL;
    service->nat = NULL;
    service->link = service->link_beside = NULL;
    service->store = NULL;
}

void service_free(struct service *service)
{
    if (!service)
        return;
    service_close_layers(service, true);
    cleanup_close(&service->lock_fds[0]);
    cleanup_close(&service->lock_fds[1]);
    free(service);
}

bool service_is_torn_down(const struct service *service)
{
    return service->torn_down;
}
