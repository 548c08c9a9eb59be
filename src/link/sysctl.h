/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to link/; sysctl_get and sysctl_set are in link.h. */
#pragma once

#define SYSCTL_PATH_MAX 256

/* File of a dotted key. -EINVAL for a key that would leave /proc/sys or has an empty part,
 * -ENAMETOOLONG. */
int sysctl_path(const char *key, char ret_path[SYSCTL_PATH_MAX]);
