/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Are the elements of the kernel's sets those that a batch says (for verify.c)? */
#pragma once

#include "nat/table.h"

/* Those of the sets that every table has. When they differ it looks again for some milliseconds. */
int verify_elements(struct nat *nat, const struct nat_batch *batch,
                    const struct nat_batch *constant, bool *ret_same, struct error *error);
/* Those of one policy's own sets: ranges, services, what is open by name. *ret_same must be true
 * before. */
int verify_policy(struct nat *nat, const struct nat_batch *batch,
                  const struct policy_object *object, bool *ret_same, struct error *error);
