/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to link/; the rest of netns.c is in link.h. */
#pragma once

#include <stdint.h>

/* Field 22 of the text of /proc/<pid>/stat (proc(5)). Returns 0 or -EINVAL. */
int process_parse_start_time(const char *text, uint64_t *ret_start);
