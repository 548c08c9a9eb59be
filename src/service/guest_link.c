/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel has one lock for all that configures links (RTNL), and who holds it holds it for long:
 * making a veth pair takes hundreds of microseconds, deleting links milliseconds. So the loop does
 * not wait for it: links of guests are made (guest_plan_start) and removed (any undo) by the thread
 * beside it, in the order in which that was asked for. Without its rules a guest whose link is to
 * go neither sends nor receives. */
#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "service/step.h"

/* --- removing --- */

/* What is to go, with room for the endpoints. */
struct removal {
    struct job job;
    struct service *service;
    struct error error; /* why the last that failed did */
    size_t n_failed;
    size_t count;
    struct link_endpoint endpoints[];
};

static void removal_run(struct job *job)
{
    struct removal *removal = (struct removal *)job;

    for (size_t i = removal->count; i-- > 0;) {
        struct error error = ERROR_INIT;

        if (link_endpoint_remove(removal->service->link_beside, &removal->endpoints[i], &error) >=
            0)
            continue;
        removal->error = error;
        removal->n_failed++;
    }
}

static void removal_done(struct job *job)
{
    struct removal *removal = (struct removal *)job;

    if (removal->n_failed)
        undo_failed(removal->service, "a guest's links", &removal->error);
    free(removal);
}

void links_remove(struct service *service, const struct guest_plan *plan, size_t end)
{
    size_t count = end - plan->first_endpoint;
    struct error error = ERROR_INIT;
    struct removal *removal;

    if (count == 0)
        return;
    removal = calloc(1, sizeof(*removal) + count * sizeof(removal->endpoints[0]));
    if (!removal) {
        error_set(&error, ENOMEM, "no job");
        undo_failed(service, "a guest's links", &error);
        return;
    }
    *removal = (struct removal){
        .job = {.run = removal_run, .done = removal_done}, .service = service, .count = count};
    for (size_t i = 0; i < count; i++) {
        plan_link(plan, plan->first_endpoint + i, &removal->endpoints[i]);
        link_endpoint_abandon(service->link, &removal->endpoints[i]);
    }
    background_submit(service->background, &removal->job);
}

/* --- making --- */

static int link_create(struct link *link, const struct guest_plan *plan, size_t index,
                       struct error *error)
{
    struct link_endpoint endpoint;

    plan_link(plan, index, &endpoint);
    if (plan->guest->kind == KIND_TAP)
        return link_tap_create(
            link, &endpoint,
            plan->ret_tap_fds ? &plan->ret_tap_fds[index - plan->first_endpoint] : NULL, error);
    return link_veth_create(link, &endpoint, error);
}

int links_create(struct link *link, const struct guest_plan *plan, size_t *ret_made,
                 struct error *error)
{
    size_t i = plan->first_endpoint;
    int r = 0;

    while (i < plan->guest->n_endpoints && (r = link_create(link, plan, i, error)) >= 0)
        i++;
    *ret_made = i;
    return r;
}

struct creation {
    struct job job;
    struct service *service;
    struct guest_plan *plan;
    guest_plan_done_fn done;
    void *userdata;
    size_t made;
    int result;
    struct error error;
};

static void creation_run(struct job *job)
{
    struct creation *creation = (struct creation *)job;
    int r = fault_point(guest_steps[GUEST_STEP_LINKS].name, &creation->error);

    if (r >= 0)
        r = links_create(creation->service->link_beside, creation->plan, &creation->made,
                         &creation->error);
    creation->result = r;
}

static void creation_done(struct job *job)
{
    struct creation *creation = (struct creation *)job;
    struct service *service = creation->service;
    struct guest_plan *plan = creation->plan;
    int r = creation->result;

    if (r >= 0) {
        r = steps_apply(service, guest_steps, GUEST_STEP_LINKS + 1, n_guest_steps, plan,
                        &creation->error);
    } else {
        links_remove(service, plan, creation->made);
        steps_undo(service, guest_steps, GUEST_STEP_LINKS, plan);
    }
    creation->done(creation->userdata, r, &creation->error);
    free(creation);
}

int guest_plan_start(struct service *service, struct guest_plan *plan, guest_plan_done_fn done,
                     void *userdata, struct error *error)
{
    struct creation *creation = calloc(1, sizeof(*creation));
    int r;

    if (!creation)
        return error_set(error, ENOMEM, "guest");
    r = steps_apply(service, guest_steps, 0, GUEST_STEP_LINKS, plan, error);
    if (r < 0) {
        free(creation);
        return r;
    }
    *creation = (struct creation){.job = {.run = creation_run, .done = creation_done},
                                  .service = service,
                                  .plan = plan,
                                  .done = done,
                                  .userdata = userdata,
                                  .made = plan->first_endpoint};
    background_submit(service->background, &creation->job);
    return 0;
}
