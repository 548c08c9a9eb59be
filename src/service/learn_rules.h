/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From connections that were seen to the rules that allow them and nothing else. Pure. */
#pragma once

#include "base/list.h"

struct learnt_flow {
    struct ip ip;
    const char *name; /* that was looked up to get there; NULL: none */
    uint8_t protocol;
    uint16_t port; /* TCP and UDP */
};

/* One RULE or more for each name, and for each address without one, sorted: ports that follow each
 * other are a range, and those of TCP and UDP alike need no protocol. A protocol that RULEs don't
 * know opens all of its destination. 0 or -ENOMEM. */
int learn_rules_make(const struct learnt_flow *flows, size_t count, struct strings *ret_rules);
