/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The way to the disk that the store gives SQLite (sqlite.org/vfs.html): the system's own, but a
 * transaction reaches the log in one write(2) instead of two for each page. For connections that
 * don't spill (PRAGMA cache_spill): what is gathered must not outlive the write lock. Private to
 * the store.
 */
#pragma once

#define STORE_VFS "moat-store"

/* Makes STORE_VFS known to the library, once. Does not block. 0, or -ENOMEM. */
int store_vfs_register(void);
