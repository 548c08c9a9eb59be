/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The checks of system.doctor, one function each. */
#pragma once

#include "base/api.h"

struct service;
struct checks;

/* Adds what was found. remedy: one line that says what to do; not shown when it is ok. */
void check_add(struct checks *checks, const char *name, bool ok, const char *detail,
               const char *remedy);

/* Other firewalls (doctor_firewall.c): on the way out and in, and to the host's own services. */
void check_forward(struct service *service, struct checks *checks);
void check_input(struct service *service, struct checks *checks);
