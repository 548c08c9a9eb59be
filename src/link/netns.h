/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to link/; the rest of netns.c is in link.h. */
#pragma once

#include <stdint.h>

#include "base/error.h"

/* Field 22 of the text of /proc/<pid>/stat (proc(5)). Returns 0 or -EINVAL. */
int process_parse_start_time(const char *text, uint64_t *ret_start);

/* Between the two the calling thread is inside another namespace. One that can't return would act
 * on a guest's namespace as if it were the host's: the process is aborted then. */
int netns_enter(int netns_fd, struct error *error);
void netns_return(int home_fd);
/* sysctl_set inside another namespace (what belongs to the network follows the thread). */
int netns_sysctl_set(int netns_fd, int home_fd, const char *key, const char *value,
                     struct error *error);
