/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The value of --network: NET[,ip=A][,ip6=A][,mac=M][,alias=N]... */
#pragma once

#include "base/api.h"
#include "base/error.h"

/* Parses the text. Returns 0 with a value whose aliases the caller frees, or -EINVAL with what is
 * wrong. */
int network_option_parse(const char *text, struct attach_network *ret_network, struct error *error);
/* Parses the text and puts it behind the networks that params has. */
int network_option_add(struct guest_attach_params *params, const char *text, struct error *error);
