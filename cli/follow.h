/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest of `moat run` while its COMMAND runs: its resolv.conf and hosts follow its networks, and
 * whoever detaches it is heard of. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "channel.h"
#include "etc_files.h"
#include "remote.h"
#include "resolver_query.h"

/* What the daemon is asked, and has not answered yet: one thing after the other. */
enum follow_question {
    FOLLOW_NOTHING,
    FOLLOW_SUBSCRIPTION,
    FOLLOW_GUEST,
    FOLLOW_STATUS,
    FOLLOW_NETWORKS, /* each network of the guest */
};

struct follow {
    const char *socket;
    struct remote *remote; /* holds the guest; NULL: moatd is away */
    struct resolver_wish wish;
    struct guest guest; /* as it was seen last */
    bool gone;          /* detached by somebody else */
    char reason[64];    /* then: why, as the daemon says it */
    /* The rest is private. */
    struct stat lock; /* of the moatd that was connected to last; st_ino 0: there was none */
    bool starting;    /* another one has come */
    int64_t next_try_ms;
    int pause_ms;
    enum follow_question question;
    size_t n_answered;           /* networks */
    bool again;                  /* something has happened meanwhile */
    struct resolver_facts facts; /* as far as they are known */
    struct {
        int fd;           /* -1: not known yet */
        struct text text; /* what moat wrote there */
    } files[ETC_FILES];
};

/* Before the connection is made. The socket (NULL: the default) must outlive it. */
void follow_init(struct follow *ret_follow, const char *socket);
/* Ends the connection. */
void follow_deinit(struct follow *follow);

/* From here on: the connection and the guest become the follow's, what wish points to must outlive
 * it, and the texts, which become empty, are what the guest's files say. */
void follow_begin(struct follow *follow, struct remote *remote, struct guest *guest,
                  const struct resolver_wish *wish, struct text *conf, struct text *hosts);
/* The open files, which become the follow's and say what follow_begin was told: it begins. */
void follow_take_files(struct follow *follow, const int files[CHANNEL_FILES]);

/* For poll(2): a descriptor to be read, or -1, and the longest time until follow_turn is called. */
int follow_fd(const struct follow *follow);
int follow_timeout_ms(const struct follow *follow);
/* Takes in what has happened, and does what is due; sets gone. Doesn't wait for the daemon. */
void follow_turn(struct follow *follow);

/* COMMAND has ended: detaches the guest unless it is gone. Gone at once, not just soon: whoever
 * waits for us may use the name and the ports again. What can't be done any more the daemon does by
 * itself, so that failures are none. */
void follow_detach(struct follow *follow);
