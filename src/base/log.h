/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Logging to stderr: journal level prefixes ("<6>") when stderr is the journal ($JOURNAL_STREAM),
 * plain "moatd: …" lines otherwise. Thread-safe: one write(2) per line. */
#pragma once

#include "base/error.h"

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

/* program: what stands before each line ("moatd", "moatd-dns"). Call once, before threads. */
void log_init(const char *program, enum log_level max_level);
void log_message(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define log_error(...) log_message(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_message(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_message(LOG_LEVEL_DEBUG, __VA_ARGS__)
