/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every message has a number. The page, which the worker maps too, shows the number before the
 * message is sent; a query that reaches the worker after a caller of ours has answered therefore
 * finds either the message or the notice that it comes (dns_message.h). */
#include "base/log.h"
#include "names/private.h"

int names_send(struct names *names, uint16_t type, struct dns_message *message, size_t length,
               const int *fds, size_t n_fds, struct error *error)
{
    uint64_t number = atomic_load_explicit(&names->page->number, memory_order_relaxed) + 1;

    message->number = number;
    atomic_store_explicit(&names->page->number, number, memory_order_release);
    return worker_send(names->worker, type, message, length, fds, n_fds, error);
}

/* For what nobody waits for, and for what can't be refused any more. */
void names_send_or_log(struct names *names, uint16_t type, struct dns_message *message,
                       size_t length)
{
    struct error error = ERROR_INIT;

    if (names_send(names, type, message, length, NULL, 0, &error) < 0)
        log_error("the name worker can't be told of a change: %s", error.text);
}

void names_send_removal(struct names *names, uint16_t type, int64_t id)
{
    struct dns_remove_message message = {.id = id};

    names_send_or_log(names, type, &message.message, sizeof(message));
}
