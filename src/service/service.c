/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening and closing: the store, the kernel's sockets, the workers, the first reconcile. */
#include "service/service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/yield.h"
#include "service/private.h"

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

/* --- promises --- */

static void wake_durable(void *userdata)
{
    struct service *service = userdata;

    loop_wake_send(service->durable_wake);
}

static void tell_progress(void *userdata)
{
    struct service *service = userdata;

    if (service->on_progress)
        service->on_progress(service->on_progress_userdata);
}

void service_on_progress(struct service *service, service_progress_fn fn, void *userdata)
{
    service->on_progress = fn;
    service->on_progress_userdata = userdata;
}

static void on_durable(void *userdata)
{
    struct service *service = userdata;

    if (service_has_failed(service))
        loop_stop(service->loop);
    else
        tell_progress(service);
}

static int open_store(struct service *service, struct error *error)
{
    int r;

    service->durable_wake = loop_wake_new(service->loop, on_durable, service);
    if (!service->durable_wake)
        return error_set(error, ENOMEM, "service");
    loop_wake_set_urgent(service->durable_wake);
    r = store_open(service->config->state_dir, &service->store, error);
    if (r >= 0)
        store_on_durable(service->store, wake_durable, service);
    return r;
}

struct promise service_promised(const struct service *service)
{
    return (struct promise){
        .commit = service->store ? store_committed(service->store) : 0,
        .release = service->reservations ? reserve_released(service->reservations) : 0,
        .closing = service->reservations ? reserve_closing(service->reservations) : 0,
    };
}

struct promise promise_since(const struct promise *promise, const struct promise *before)
{
    return (struct promise){
        .commit = promise->commit > before->commit ? promise->commit : 0,
        .release = promise->release > before->release ? promise->release : 0,
        .closing = promise->closing > before->closing ? promise->closing : 0,
    };
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

struct promise promise_both(const struct promise *one, const struct promise *other)
{
    return (struct promise){
        .commit = later(one->commit, other->commit),
        .release = later(one->release, other->release),
        .closing = later(one->closing, other->closing),
    };
}

bool promise_is_empty(const struct promise *promise)
{
    return !promise->commit && !promise->release && !promise->closing;
}

bool service_is_kept(struct service *service, const struct promise *promise)
{
    return (!service->store || store_is_durable(service->store, promise->commit)) &&
           service_is_released(service, promise);
}

void service_wait_kept(struct service *service)
{
    if (service->store)
        store_wait_durable(service->store);
    if (service->reservations)
        reserve_released_wait(service->reservations);
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
        .on_released = tell_progress,
        .userdata = service,
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
        r = directories_remember(service, error);
    if (r >= 0)
        r = link_open(&service->link, error);
    if (r >= 0)
        r = link_open_beside(service->link, &service->link_beside, error);
    if (r >= 0)
        r = background_new(service->loop, "links", &service->background, error);
    if (r >= 0)
        background_on_idle(service->background, tell_progress, service);
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
    int r = directories_open(service, error);

    if (r >= 0)
        r = identify_host(service, error);
    if (r >= 0)
        r = open_layers(service, error);
    if (r >= 0)
        r = drops_start(service, error);
    if (r >= 0)
        r = watch_start(service, error);
    service->reconciling = r >= 0;
    if (r >= 0)
        r = reconcile_start(service, error);
    if (r < 0)
        return r;
    if (default_network_ensure(service, &no_default) < 0)
        log_error("the network \"" DEFAULT_NETWORK "\": %s", no_default.text);
    service_wait_kept(service);
    return 0;
}

/* A start that came to nothing leaves nothing. Where there was a store before, it and the data
 * plane are another moatd's, whose next start goes on with them. */
static void forget_start(struct service *service)
{
    struct error error = ERROR_INIT;

    if (service->made_store && service->reconciling && nat_remove_all(service->nat, &error) < 0)
        log_warning("%s", error.text);
    service_close_layers(service, !service->made_store);
    if (service->made_store)
        directories_forget(service);
    else
        directories_unmake(service);
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
        .detaching_end = &service->detaching,
        .lock_fds = {-1, -1},
        .started_ms = monotonic_ms(),
    };
    r = start(service, error);
    if (r < 0) {
        forget_start(service);
        service_free(service);
        return r;
    }
    *ret_service = service;
    return 0;
}

bool service_is_released(struct service *service, const struct promise *promise)
{
    return !service->reservations ||
           (reserve_is_released(service->reservations, promise->release) &&
            reserve_is_closed(service->reservations, promise->closing));
}

bool service_is_settled(struct service *service)
{
    return !service->working && !service->detaching &&
           (!service->background || background_is_idle(service->background));
}

/* What is told of here goes over guests that are in the middle of something. */
void service_settle(struct service *service)
{
    yield_hold();
    service_detach_flush(service);
    if (service->background)
        background_settle(service->background);
    yield_release();
}

void service_work_begin(struct service *service)
{
    service->working = true;
    service->working_on[0] = '\0';
}

void service_work_end(struct service *service)
{
    service->working = false;
}

bool service_is_working(const struct service *service)
{
    return service->working;
}

void service_work_on(struct service *service, const char *guest)
{
    snprintf(service->working_on, sizeof(service->working_on), "%s", guest);
}

bool service_works_on(const struct service *service, const char *guest)
{
    return service->working && strcmp(service->working_on, guest) == 0;
}

void service_give_up(struct service *service)
{
    struct error error = ERROR_INIT;

    if (service->made_store && service_teardown(service, &error) < 0)
        log_warning("%s", error.text);
}

void service_close_layers(struct service *service, bool keep_running)
{
    background_free(service->background);
    service->background = NULL;
    watch_stop(service);
    drops_stop(service);
    nameless_free_all(service);
    owner_free_all(service);
    learn_free_all(service);
    waiting_free_all(service);
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
