/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "command.h"

/* Prints the latest queries; with invocation->follow goes on until the daemon or the reader is
 * gone. Returns the exit code. */
int dns_log_run(struct invocation *invocation);
