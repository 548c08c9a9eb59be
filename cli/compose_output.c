/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compose_output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

const char *compose_colour(FILE *output, size_t number)
{
    /* SGR colours (ECMA-48) that can be read on light and dark ground. */
    static const char *const colours[] = {"\033[36m", "\033[33m", "\033[32m", "\033[35m",
                                          "\033[34m"};
    const char *forbidden = getenv("NO_COLOR");

    if ((forbidden && *forbidden) || !isatty(fileno(output)))
        return "";
    return colours[number % ARRAY_SIZE(colours)];
}

static void print_line(const struct compose_prefix *prefix, const char *line, size_t length,
                       FILE *output)
{
    fprintf(output, "%s%-*s |%s ", prefix->colour, (int)prefix->width, prefix->name,
            prefix->colour[0] ? "\033[0m" : "");
    fwrite(line, 1, length, output);
    fputc('\n', output);
}

/* Prints the whole lines, and everything when the room is full or nothing more comes. */
static void print_lines(struct compose_stream *stream, const struct compose_prefix *prefix,
                        bool all, FILE *output)
{
    size_t begin = 0;
    const char *end;

    while ((end = memchr(stream->line + begin, '\n', stream->length - begin))) {
        print_line(prefix, stream->line + begin, (size_t)(end - stream->line) - begin, output);
        begin = (size_t)(end - stream->line) + 1;
    }
    if (begin < stream->length && (all || (begin == 0 && stream->length == sizeof(stream->line)))) {
        print_line(prefix, stream->line + begin, stream->length - begin, output);
        begin = stream->length;
    }
    memmove(stream->line, stream->line + begin, stream->length - begin);
    stream->length -= begin;
    fflush(output);
}

void compose_stream_read(struct compose_stream *stream, const struct compose_prefix *prefix,
                         FILE *output)
{
    ssize_t n =
        read(stream->fd, stream->line + stream->length, sizeof(stream->line) - stream->length);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n > 0)
        stream->length += (size_t)n;
    print_lines(stream, prefix, n <= 0, output);
    if (n <= 0) {
        close(stream->fd);
        stream->fd = -1;
    }
}
