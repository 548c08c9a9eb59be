/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UID[:GID] and who that is. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/error.h"

struct user {
    uid_t uid;
    gid_t gid;
    bool gid_given;
    gid_t *groups; /* supplementary ones; malloc'ed */
    size_t n_groups;
};

/* Where names and groups are looked up. */
enum user_source {
    USER_HOST,  /* as the host is configured (NSS); may block on a directory service */
    USER_FILES, /* /etc/passwd and /etc/group below the present root, nothing else */
};

/* Parses UID[:GID]; names instead of numbers are a courtesy. Without GID: the user's own group and
 * supplementary groups where the user is known, else a group of the same number and none. With GID:
 * that group alone. Returns 0, or -EINVAL (or -ENOMEM) with the error filled. */
int user_parse(const char *text, enum user_source source, struct user *ret_user,
               struct error *error);
/* Accepts one that is all zero. */
void user_deinit(struct user *user);
