/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of a policy are called in the kernel: guestID_VERSION_…, with the policy's id and
 * version, so that two versions of one stand side by side. */
#pragma once

#include "nat/nat.h"
#include "nat/policy_compile.h"

#define POLICY_NAME_MAX 64

/* The chain of a class; for id 0 the one that drops while a rebuild goes on. */
void policy_chain_name(int64_t id, uint64_t version, enum policy_class class,
                       char ret_name[POLICY_NAME_MAX]);
/* Reads such a name (but of id 0). */
bool policy_chain_find(const char *name, int64_t *ret_id, uint64_t *ret_version,
                       enum policy_class *ret_class);
/* Reads the beginning of a name of a policy's chain or set; returns the rest, NULL for others. */
const char *policy_name_read(const char *name, int64_t *ret_id, uint64_t *ret_version);

/* The set of ranges of a class, or, with POLICY_CLASSES, of both. */
void policy_ranges_name(int64_t id, uint64_t version, enum policy_class class, uint8_t family,
                        char ret_name[POLICY_NAME_MAX]);
/* The map of services, the chain of one, and its set of openings; closes is for what is denied. */
void policy_services_name(int64_t id, uint64_t version, bool closes,
                          char ret_name[POLICY_NAME_MAX]);
void policy_service_name(int64_t id, uint64_t version, bool closes, uint32_t service,
                         char ret_name[POLICY_NAME_MAX]);
void policy_openings_name(int64_t id, uint64_t version, bool closes, uint8_t family,
                          uint32_t service, char ret_name[POLICY_NAME_MAX]);
/* Reads a name of openings into an opening without address. */
bool policy_openings_read(const char *name, struct nat_opening *ret_opening);
