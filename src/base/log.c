/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A line is cut here: more than the longest error text with its context. */
#define LINE_MAX_LENGTH 2048

static const char *log_program = "moat";
static enum log_level log_max_level = LOG_LEVEL_INFO;
static bool log_to_journal;

/* $JOURNAL_STREAM is "DEVICE:INODE" of the stream that the journal reads. It is inherited by
 * children whose stderr goes elsewhere, so it counts only where it names our stderr
 * (systemd.exec(5)). */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    uintmax_t device;
    uintmax_t inode;
    struct stat status;

    if (!stream || fstat(STDERR_FILENO, &status) < 0)
        return false;
    if (sscanf(stream, "%" SCNuMAX ":%" SCNuMAX, &device, &inode) != 2)
        return false;
    return device == status.st_dev && inode == status.st_ino;
}

void log_init(const char *program, enum log_level max_level)
{
    log_program = program;
    log_max_level = max_level;
    log_to_journal = stderr_is_journal();
}

/* Copies text with control characters escaped as \xNN, so that no value can begin a line of its own
 * or drive a terminal. Returns the new length of the line, at most `size`. */
static size_t line_append(char *line, size_t length, size_t size, const char *text)
{
    static const char digits[] = "0123456789abcdef";

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool control = c < 0x20 || c == 0x7f;

        if (length + (control ? 4 : 1) > size)
            break;
        if (control) {
            line[length++] = '\\';
            line[length++] = 'x';
            line[length++] = digits[c >> 4];
            line[length++] = digits[c & 0xf];
        } else {
            line[length++] = (char)c;
        }
    }
    return length;
}

static void line_write(const char *line, size_t length)
{
    ssize_t written;

    do {
        written = write(STDERR_FILENO, line, length);
    } while (written < 0 && errno == EINTR);
}

void log_message(enum log_level level, const char *format, ...)
{
    char text[LINE_MAX_LENGTH];
    char line[LINE_MAX_LENGTH];
    int saved_errno = errno;
    va_list arguments;
    size_t length;

    if (level > log_max_level)
        return;
    va_start(arguments, format);
    if (vsnprintf(text, sizeof(text), format, arguments) < 0)
        text[0] = '\0';
    va_end(arguments);

    if (log_to_journal)
        length = (size_t)snprintf(line, sizeof(line), "<%d>", (int)level);
    else
        length = (size_t)snprintf(line, sizeof(line), "%.64s: ", log_program);
    length = line_append(line, length, sizeof(line) - 1, text);
    line[length++] = '\n';
    line_write(line, length);
    errno = saved_errno;
}
