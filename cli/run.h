/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat run, for other commands too. */
#pragma once

#include "command.h"

/* Runs the invocation's COMMAND as a guest (invocation->params.guest_attach, ->process), until it
 * ends. Returns the exit code.
 *
 * report: the other end of a channel (channel.h) that is told MESSAGE_EXECUTED once COMMAND runs,
 * or MESSAGE_FAILED with the exit code and the reason, which is then not printed; -1: none. It is
 * kept open; all other descriptors but 0 to 2 are closed. */
int run_guest(struct invocation *invocation, int report);
