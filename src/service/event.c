/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/log.h"
#include "service/private.h"

void event_emit(struct service *service, const char *type, const char *network, const char *guest,
                const char *format, ...)
{
    struct event event = {0};
    struct timespec now;
    va_list arguments;

    clock_gettime(CLOCK_REALTIME, &now);
    event.time_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    snprintf(event.type, sizeof(event.type), "%s", type);
    snprintf(event.network, sizeof(event.network), "%s", network ? network : "");
    snprintf(event.guest, sizeof(event.guest), "%s", guest ? guest : "");
    va_start(arguments, format);
    vsnprintf(event.detail, sizeof(event.detail), format, arguments);
    va_end(arguments);
    service_changed(service); /* whatever is worth an event was written */
    log_debug("%s network=%s guest=%s %s", event.type, event.network, event.guest, event.detail);
    if (service->on_event)
        service->on_event(service->on_event_userdata, &event);
}
