/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domain rules: which addresses guests with such rules were given for which names, and what their
 * rules make of that. The kernel has the outcome (nat_opening); what led to it is kept here, so
 * that other rules can make something else of it, and is read from the kernel at start-up. */
#pragma once

#include "base/error.h"
#include "base/model.h"
#include "base/rule.h"
#include "names/names.h"
#include "nat/nat.h"

struct service;
struct domains;
struct domain; /* one guest's, with one version of its policy */

struct domains *domains_new(void); /* NULL: no memory */
void domains_free(struct domains *domains);

/* What the guest's policy, as it is in `guest`, makes of what the guest was given so far, as
 * openings in the batch (beside the policy itself, nat_batch_policy). *ret_domain: to be installed
 * when the batch was committed; NULL without domain rules. batch may be NULL. */
int domain_prepare(struct service *service, const struct guest *guest, struct nat_batch *batch,
                   struct domain **ret_domain, struct error *error);
/* From now on that is the guest's; NULL: it has no domain rules. */
void domain_install(struct service *service, int64_t guest_id, struct domain *domain);
void domain_free(struct domain *domain);
void domain_forget(struct service *service, int64_t guest_id);
/* Is what is installed that of the guest's policy? */
bool domain_is_current(const struct service *service, const struct guest *guest);
/* Appends the guest's openings as they are. */
void domain_append(struct service *service, int64_t guest_id, struct nat_batch *batch);

/* Refuses rules that speak of names which are not the outside's. prefix: of the fields' names. */
int domain_check(const struct service *service, const struct policy *policy, const char *prefix,
                 struct error *error);
/* After the guest's rules are in the kernel: makes what is installed that of the guest's policy,
 * and tells the name service what the guest may ask. */
int domain_follow(struct service *service, const struct guest *guest, struct error *error);
/* names_config.give; userdata: the service. */
enum names_given domain_give(void *userdata, const struct names_give *give);

/* Start-up: reads what the former moatd left in the kernel, for domain_prepare; and forgets what
 * nobody has asked for. */
int domains_load(struct service *service, struct error *error);
void domains_loaded_forget(struct service *service);

/* The names for which the guest was given this address, the latest first: those for which it is
 * open (live), or all that are remembered, a day or so. Valid until the next call of the loop.
 * Returns how many there are, at most `max`. None for guests without domain rules whose connections
 * are not told of. */
size_t domain_names_find(struct service *service, int64_t guest_id, const struct ip *ip, bool live,
                         const char **ret_names, size_t max);
