/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What waits for the kernel's configuration lock (guest_link.c) in the middle of a call: it takes
 * its turn with the links of guests, and detaches go on meanwhile. */
#include "service/private.h"

struct errand {
    struct job job;
    struct link *link;
    beside_fn fn;
    void *subject;
    struct error *error;
    int result;
};

static void errand_run(struct job *job)
{
    struct errand *errand = (struct errand *)job;

    errand->result = errand->fn(errand->link, errand->subject, errand->error);
}

int beside_run(struct service *service, beside_fn fn, void *subject, struct error *error)
{
    struct errand errand = {.job = {.run = errand_run},
                            .link = service->link_beside,
                            .fn = fn,
                            .subject = subject,
                            .error = error};

    background_run(service->background, &errand.job);
    return errand.result;
}

struct prefixes {
    struct link_prefix *items;
    size_t count;
};

static int list_prefixes(struct link *link, void *subject, struct error *error)
{
    struct prefixes *prefixes = subject;

    return link_prefix_list(link, &prefixes->items, &prefixes->count, error);
}

int prefixes_list(struct service *service, struct link_prefix **ret_prefixes, size_t *ret_count,
                  struct error *error)
{
    struct prefixes prefixes = {0};
    int r = beside_run(service, list_prefixes, &prefixes, error);

    *ret_prefixes = prefixes.items;
    *ret_count = prefixes.count;
    return r;
}
