/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the worker is told is kept here in the form of its messages, by id: after a crash all of
 * them are sent again, then READY. A fresh worker answers nothing before READY, which the first one
 * gets when start-up has settled. */
#include "names/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "names/private.h"
#include "names/resolve_hook.h"
#include "names/resolved.h"

#define ANSWER_TIMEOUT_MS 100
#define LOG_TIMEOUT_MS 600000 /* the query log goes off when nobody has asked for so long */

/* --- the worker --- */

static int config_send(struct names *names, struct error *error)
{
    return names_send(names, DNS_MESSAGE_CONFIG, &names->config.message, sizeof(names->config),
                      &names->page_fd, 1, error);
}

static int log_send(struct names *names, struct error *error)
{
    struct dns_log_message message = {.on = names->log != NULL};

    return names_send(names, DNS_MESSAGE_LOG, &message.message, sizeof(message), NULL, 0, error);
}

static int ready_send(struct names *names, struct error *error)
{
    struct dns_message message = {0};

    return names_send(names, DNS_MESSAGE_READY, &message, sizeof(message), NULL, 0, error);
}

static int everything_send(struct names *names, struct error *error)
{
    int r = config_send(names, error);

    if (r == 0)
        r = names_upstreams_send(names, error);
    if (r == 0)
        r = names_forwards_send(names, error);
    if (r == 0 && names->log)
        r = log_send(names, error);
    for (struct served_network *network = names->networks; r == 0 && network;
         network = network->next)
        r = names_network_send(names, network, true, error);
    if (r == 0)
        r = names_permits_send(names, error);
    if (r == 0)
        r = names_kept_send(names, &names->endpoints, error);
    if (r == 0)
        r = names_kept_send(names, &names->records, error);
    if (r == 0 && names->settled)
        r = ready_send(names, error);
    return r;
}

static void worker_started(void *userdata)
{
    struct names *names = userdata;
    struct error error = ERROR_INIT;

    if (everything_send(names, &error) < 0)
        log_error("the name worker can't be told what it should serve: %s", error.text);
}

static void worker_said(void *userdata, uint16_t type, const void *payload, size_t length)
{
    struct names *names = userdata;

    if (type == DNS_MESSAGE_STATS && length == sizeof(names->stats))
        memcpy(&names->stats, payload, length);
    else if (type == DNS_MESSAGE_GIVE)
        names_give_received(names, payload, length, false);
    else if (type == DNS_MESSAGE_QUERIES && names->log &&
             !query_log_add(names->log, payload, length))
        log_warning("the name worker said something that can't be understood");
}

/* A former moatd's, that finishes what it had begun. */
static void worker_said_draining(void *userdata, uint16_t type, const void *payload, size_t length)
{
    if (type == DNS_MESSAGE_GIVE)
        names_give_received(userdata, payload, length, true);
}

static const struct worker_ops worker_ops = {
    .started = worker_started, .message = worker_said, .message_draining = worker_said_draining};

/* --- life --- */

static int page_init(struct names *names, struct error *error)
{
    names->page_fd = memfd_create("moat-names", MFD_CLOEXEC);
    if (names->page_fd < 0 || ftruncate(names->page_fd, sizeof(*names->page)) < 0)
        return error_set(error, errno, "cannot make the name service's page");
    names->page =
        mmap(NULL, sizeof(*names->page), PROT_READ | PROT_WRITE, MAP_SHARED, names->page_fd, 0);
    if (names->page == MAP_FAILED) {
        names->page = NULL;
        return error_set(error, errno, "cannot map the name service's page");
    }
    return 0;
}

/* The worker has its own descriptor then; where it can't be told, systemd-resolved connects again.
 */
static void hook_connected(void *userdata, int fd)
{
    struct names *names = userdata;
    struct dns_message message = {0};
    struct error error = ERROR_INIT;

    if (names_send(names, DNS_MESSAGE_HOOK, &message, sizeof(message), &fd, 1, &error) < 0)
        log_warning("systemd-resolved can't be answered: %s", error.text);
    close(fd);
}

static void config_fill(const struct names_config *config, struct dns_config_message *ret_message)
{
    *ret_message = (struct dns_config_message){
        .ttl_s = config->ttl_s,
        .stale_s = config->stale_s,
        .cache_bytes = config->cache_bytes,
        .max_in_flight = config->max_in_flight,
        .max_connections = config->max_connections,
        .rate = config->rate,
        .rebind_guard = config->rebind_guard,
    };
    memcpy(ret_message->domain, config->domain, strlen(config->domain) + 1);
}

static int names_init(struct names *names, const struct names_config *config, struct error *error)
{
    struct worker_config worker = {
        .loop = config->loop,
        .kind = "dns",
        .run_dir = config->run_dir,
        .uid = config->uid,
        .gid = config->gid,
    };
    int r;

    if (!name_is_dns(config->domain))
        return error_set_field(error, "domain", "\"%s\" is not a domain name", config->domain);
    config_fill(config, &names->config);
    names->fdstore = config->fdstore;
    names->loop = config->loop;
    names->give = config->give;
    names->userdata = config->userdata;
    r = page_init(names, error);
    if (r == 0)
        r = names_upstreams_init(names, config, error);
    if (r == 0)
        r = names_forwards_init(names, config, error);
    if (r == 0 && config->resolved)
        names->resolved = resolved_new(config->loop, names->config.domain);
    if (r == 0)
        r = worker_new(&worker, &worker_ops, names, &names->worker, error);
    if (r == 0 && config->resolved)
        names->hook = resolve_hook_new(config->loop, hook_connected, names);
    return r;
}

int names_new(const struct names_config *config, struct names **ret_names, struct error *error)
{
    struct names *names = calloc(1, sizeof(*names));
    int r;

    if (!names)
        return error_set(error, ENOMEM, "cannot start the name service");
    names->page_fd = -1;
    r = names_init(names, config, error);
    if (r < 0) {
        names_free(names, false);
        return r;
    }
    names_upstreams_log(names);
    *ret_names = names;
    return 0;
}

void names_free(struct names *names, bool keep_running)
{
    if (!names)
        return;
    resolve_hook_free(names->hook);
    worker_free(names->worker, keep_running);
    resolved_free(names->resolved);
    names_networks_free(names);
    names_kept_free(&names->endpoints);
    names_kept_free(&names->records);
    loop_timer_free(names->log_timer);
    query_log_free(names->log);
    names_upstreams_deinit(names);
    names_permits_free(names);
    if (names->page)
        munmap(names->page, sizeof(*names->page));
    if (names->page_fd >= 0)
        close(names->page_fd);
    free(names);
}

/* --- start-up, and what others ask --- */

void names_settled(struct names *names)
{
    struct error error = ERROR_INIT;

    worker_inherited_close(names->worker);
    fdstore_settle(names->fdstore);
    if (names->settled)
        return;
    names->settled = true;
    if (ready_send(names, &error) < 0)
        log_error("the name worker can't be told to begin: %s", error.text);
}

bool names_is_resolved(const struct names *names)
{
    return resolved_is_served(names->resolved) || resolve_hook_is_used(names->hook);
}

/* --- the query log --- */

static void log_expired(void *userdata)
{
    struct names *names = userdata;
    struct error error = ERROR_INIT;

    query_log_free(names->log);
    names->log = NULL;
    if (log_send(names, &error) < 0)
        log_error("the name worker can't be told of a change: %s", error.text);
}

static int log_begin(struct names *names, struct error *error)
{
    int r;

    if (!names->log_timer)
        names->log_timer = loop_timer_new(names->loop, log_expired, names);
    names->log = query_log_new();
    if (!names->log || !names->log_timer)
        r = error_set(error, ENOMEM, "query log");
    else
        r = log_send(names, error);
    if (r < 0) {
        query_log_free(names->log);
        names->log = NULL;
    }
    return r;
}

int names_log_read(struct names *names, uint64_t since, struct dns_log_result *ret_result,
                   struct error *error)
{
    bool began = !names->log;
    int r = began ? log_begin(names, error) : 0;

    if (r == 0)
        r = query_log_read(names->log, since, ret_result, error);
    if (r < 0)
        return r;
    loop_timer_start(names->log_timer, LOG_TIMEOUT_MS);
    ret_result->began = began;
    return 0;
}

/* --- what others ask --- */

int names_flush(struct names *names, const char *name, struct error *error)
{
    struct dns_flush_message message = {0};

    memcpy(message.name, name, strlen(name));
    return names_send(names, DNS_MESSAGE_FLUSH, &message.message, sizeof(message), NULL, 0, error);
}

bool names_answer(struct names *names)
{
    return worker_answers(names->worker, ANSWER_TIMEOUT_MS);
}

void names_status_get(const struct names *names, struct names_status *ret_status)
{
    const struct dns_stats_message *stats = &names->stats;

    *ret_status = (struct names_status){
        .pid = worker_pid(names->worker),
        .counters =
            {
                .queries = stats->queries,
                .local = stats->local,
                .cached = stats->cached,
                .missed = stats->missed,
                .forwarded = stats->forwarded,
                .failed = stats->failed,
                .stale = stats->stale,
                .refused = stats->refused,
                .shed = stats->shed,
                .cache_entries = stats->cache_entries,
                .cache_bytes = stats->cache_bytes,
            },
    };
}
