/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Is an address one of this host's? Its routing is asked, through a socket kept open for it. */
#pragma once

#include <stdbool.h>

#include "base/address.h"

struct local;

/* In the network namespace of the caller. 0 or a negative errno. */
int local_open(struct local **ret_local);
void local_close(struct local *local); /* accepts NULL */
/* Takes some microseconds; false also where the kernel does not answer. One thread at a time. */
bool local_has(struct local *local, const struct ip *ip);
