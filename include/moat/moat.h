/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libmoat: what a program in C needs to talk to moatd. One connection, blocking calls, JSON in and
 * out as in docs/api.md. Not thread-safe; use one connection per thread. */
#ifndef MOAT_MOAT_H
#define MOAT_MOAT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moat;

/* Connects to the daemon's socket. path NULL: $MOAT_SOCKET, else /run/moat/moat.sock. Returns 0 or
 * a negative errno (-ENOENT, -ECONNREFUSED, -EACCES: the daemon can't be reached). Blocks for the
 * connect only. */
int moat_connect(const char *path, struct moat **ret_moat);
/* Closes the connection: ephemeral guests made through it end. Accepts NULL. */
void moat_close(struct moat *moat);
/* The connection's descriptor, for poll(2). It stays the library's. */
int moat_fd(const struct moat *moat);

/* Sends one line (without newline) with n_fds descriptors as SCM_RIGHTS. Blocks until it is sent.
 * Returns 0 or a negative errno. The descriptors stay the caller's. */
int moat_send(struct moat *moat, const char *line, size_t length, const int *fds, size_t n_fds);
/* Receives one line; *ret_line is malloc'ed, NUL-terminated, without the newline. timeout_ms -1:
 * waits for ever. ret_fd (may be NULL): a descriptor that came with it, else -1; it is the
 * caller's. Returns 0, -ETIMEDOUT, -ECONNRESET at end of file, or another negative errno. */
int moat_receive(struct moat *moat, int timeout_ms, char **ret_line, size_t *ret_length,
                 int *ret_fd);

/* One call: method with params (a JSON object as text, NULL for none), waits for its answer and
 * returns the whole response document, malloc'ed. Events that arrive meanwhile are kept for
 * moat_receive. */
int moat_call(struct moat *moat, const char *method, const char *params, char **ret_response);

#ifdef __cplusplus
}
#endif

#endif
