/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/log.h"
#include "service/private.h"

static void publish(struct service *service, struct event *event)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    event->time_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    log_debug("%s network=%s guest=%s %s", event->type, event->network, event->guest,
              event->detail);
    if (service->on_event)
        service->on_event(service->on_event_userdata, event);
}

void event_emit(struct service *service, const char *type, const char *network, const char *guest,
                const char *format, ...)
{
    struct event event = {0};
    va_list arguments;

    snprintf(event.type, sizeof(event.type), "%s", type);
    snprintf(event.network, sizeof(event.network), "%s", network ? network : "");
    snprintf(event.guest, sizeof(event.guest), "%s", guest ? guest : "");
    va_start(arguments, format);
    vsnprintf(event.detail, sizeof(event.detail), format, arguments);
    va_end(arguments);
    service_changed(service); /* whatever is worth an event was written */
    publish(service, &event);
}

/* "tcp 192.0.2.7:443 (example.org): deny @public; 12 times" */
static void describe(const struct denial *denial, char *text, size_t size)
{
    char ip[IP_TEXT_MAX];
    char port[16] = "";
    char name[300] = "";
    char count[40] = "";

    ip_format(&denial->ip, ip);
    if (denial->port)
        snprintf(port, sizeof(port), ":%u", denial->port);
    if (denial->name[0])
        snprintf(name, sizeof(name), " (%s)", denial->name);
    if (denial->count > 1)
        snprintf(count, sizeof(count), "; %llu times", (unsigned long long)denial->count);
    snprintf(
        text, size,
        denial->ip.family == AF_INET6 && denial->port ? "%s [%s]%s%s: %s%s" : "%s %s%s%s: %s%s",
        denial->protocol, ip, port, name, denial->rule[0] ? denial->rule : "not allowed", count);
}

void event_emit_denied(struct service *service, const char *network, const char *guest,
                       const struct denial *denial)
{
    struct event event = {.type = "connection.denied", .has_denied = true, .denied = *denial};

    snprintf(event.network, sizeof(event.network), "%s", network);
    snprintf(event.guest, sizeof(event.guest), "%s", guest);
    describe(denial, event.detail, sizeof(event.detail));
    publish(service, &event);
}
