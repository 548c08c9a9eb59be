/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Openings (nat_batch_opening in nat.h) as elements of a policy's sets. */
#pragma once

#include "nat/nat.h"
#include "nat/nft.h"

/* Appends the batch's openings. delete_first: those that renew are deleted before, for kernels
 * where that is what renews. */
void openings_append(struct nat_batch *batch, bool delete_first,
                     struct nft_transaction *transaction);
/* Does any of them renew? */
bool openings_renew(const struct nat_batch *batch);
/* Does this kernel renew an element that is added again? */
bool opening_kernel_renews(void);
/* Are the policy's openings in the kernel those of the batch, but for what is about to end? */
struct policy_object;
int openings_verify(struct nat *nat, const struct nat_batch *batch,
                    const struct policy_object *object, bool *ret_same, struct error *error);
