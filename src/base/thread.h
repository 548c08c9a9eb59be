/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <pthread.h>

/* Starts a thread that takes no signals: they are the main thread's. Returns 0 or a negative errno.
 */
int thread_start(pthread_t *ret_thread, void *(*run)(void *), void *userdata);
