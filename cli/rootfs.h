/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat run --rootfs DIR */
#pragma once

#include <stdbool.h>

#include "base/error.h"

/* Makes a throw-away layer over DIR the caller's root, with fresh /proc, /sys and /dev; DIR is
 * never written. The caller is alone in its mount namespace, which must have been separated, and in
 * its pid and network namespaces. The working directory is the new root. Returns 0 or a negative
 * errno with the error filled. */
int rootfs_enter(const char *directory, bool user_namespace, struct error *error);
