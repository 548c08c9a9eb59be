/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Applying and undoing. A change is a table of steps, each with its undo; a step that fails undoes
 * those before it in reverse. Private to service. */
#pragma once

#include "service/private.h"

struct step {
    const char *name; /* also its fault point */
    int (*apply)(struct service *service, void *subject, struct error *error);
    void (*undo)(struct service *service, void *subject);
};

/* From `first` on, those before it are done. */
int steps_apply(struct service *service, const struct step *steps, size_t first, size_t count,
                void *subject, struct error *error);
void steps_undo(struct service *service, const struct step *steps, size_t count, void *subject);
/* An undo that the kernel refuses leaves something that only a full reconcile can put right. */
void undo_failed(struct service *service, const char *what, const struct error *error);

/* --- guest_step.c --- */
extern const struct step guest_steps[];
extern const size_t n_guest_steps;
#define GUEST_STEP_RULES 0
#define GUEST_STEP_LINKS 2 /* index of the step that makes the links */
/* Undoes whole guests: as guest_plan_undo does each, with one commit of the rules for all. */
void guest_plans_undo(struct service *service, struct guest_plan *const *plans, size_t count);

/* --- guest_link.c: the links of a guest, made in either thread and removed beside the loop --- */
/* Of the plan's endpoints, with that thread's handle; *ret_made: those before it have links, also
 * on failure. */
int links_create(struct link *link, const struct guest_plan *plan, size_t *ret_made,
                 struct error *error);
/* Of endpoints first_endpoint to end - 1, behind. */
void links_remove(struct service *service, const struct guest_plan *plan, size_t end);
