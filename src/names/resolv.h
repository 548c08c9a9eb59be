/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The name servers of a resolv.conf(5), followed as the file changes: rewritten, renamed over, or
 * its symbolic link led elsewhere. */
#pragma once

#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"

struct resolv;

/* Called from the loop when the servers are others than before. */
typedef void (*resolv_changed_fn)(void *userdata);

/* Reads the file and begins to watch it. A file that can't be read has no servers, and is no error.
 */
int resolv_new(struct loop *loop, const char *path, resolv_changed_fn changed, void *userdata,
               struct resolv **ret_resolv, struct error *error);
void resolv_free(struct resolv *resolv);
/* In the file's order. Valid until the next turn of the loop. */
const struct ips *resolv_servers(const struct resolv *resolv);

/* The servers that the text names; lines that are none, and addresses with a zone (fe80::1%eth0),
 * are left out. 0 or -ENOMEM. */
int resolv_parse(const char *text, struct ips *ret_servers);
