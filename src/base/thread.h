/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <pthread.h>

/* Starts a thread that takes no signals, which are the main thread's, and has no claim to go before
 * others (priority.h). Returns 0 or a negative errno. */
int thread_start(pthread_t *ret_thread, void *(*run)(void *), void *userdata);
