/* SPDX-License-Identifier: GPL-2.0-or-later */
/* stderr is replaced by a packet socket: one write(2) is one packet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

struct capture {
    int saved_stderr;
    int reader;
};

static int capture_start(void **state)
{
    static struct capture capture;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    capture.saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    dup2(pair[1], STDERR_FILENO);
    close(pair[1]);
    capture.reader = pair[0];
    *state = &capture;
    return 0;
}

static int capture_stop(void **state)
{
    struct capture *capture = *state;

    dup2(capture->saved_stderr, STDERR_FILENO);
    close(capture->saved_stderr);
    close(capture->reader);
    unsetenv("JOURNAL_STREAM");
    return 0;
}

/* The next line, or "" when none was written. */
static const char *capture_line(struct capture *capture)
{
    static char line[8192];
    ssize_t length = recv(capture->reader, line, sizeof(line) - 1, MSG_DONTWAIT);

    line[length > 0 ? length : 0] = '\0';
    return line;
}

static void set_journal_stream(void)
{
    char value[64];
    struct stat status;

    assert_int_equal(fstat(STDERR_FILENO, &status), 0);
    snprintf(value, sizeof(value), "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
    setenv("JOURNAL_STREAM", value, 1);
}

static void a_line_begins_with_the_program(void **state)
{
    struct capture *capture = *state;

    log_init("moatd", LOG_LEVEL_INFO);
    log_info("network %s is up", "default");
    assert_string_equal(capture_line(capture), "moatd: network default is up\n");
    log_error("no");
    assert_string_equal(capture_line(capture), "moatd: no\n");
    assert_string_equal(capture_line(capture), "");
}

static void levels_above_the_maximum_are_silent(void **state)
{
    struct capture *capture = *state;

    log_init("moatd", LOG_LEVEL_WARNING);
    log_debug("x");
    log_info("x");
    assert_string_equal(capture_line(capture), "");
    log_warning("y");
    assert_string_equal(capture_line(capture), "moatd: y\n");
    log_init("moatd", LOG_LEVEL_DEBUG);
    log_debug("z");
    assert_string_equal(capture_line(capture), "moatd: z\n");
}

static void the_journal_gets_levels(void **state)
{
    struct capture *capture = *state;

    set_journal_stream();
    log_init("moatd", LOG_LEVEL_DEBUG);
    log_error("e");
    assert_string_equal(capture_line(capture), "<3>e\n");
    log_warning("w");
    assert_string_equal(capture_line(capture), "<4>w\n");
    log_info("i");
    assert_string_equal(capture_line(capture), "<6>i\n");
    log_debug("d");
    assert_string_equal(capture_line(capture), "<7>d\n");
}

static void an_inherited_journal_stream_is_not_believed(void **state)
{
    static const char *const values[] = {"1:1", "", "garbage", ":", "99999999999999999999999:1"};
    struct capture *capture = *state;

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        setenv("JOURNAL_STREAM", values[i], 1);
        log_init("moatd", LOG_LEVEL_INFO);
        log_info("x");
        assert_string_equal(capture_line(capture), "moatd: x\n");
    }
}

static void control_characters_are_escaped(void **state)
{
    struct capture *capture = *state;

    log_init("moatd", LOG_LEVEL_INFO);
    log_info("guest \"%s\"", "a\nmoatd: forged\r\x1b[2J\t\x7f");
    assert_string_equal(capture_line(capture),
                        "moatd: guest \"a\\x0amoatd: forged\\x0d\\x1b[2J\\x09\\x7f\"\n");
    log_info("%s", "gr\xc3\xbc\xc3\x9f");
    assert_string_equal(capture_line(capture), "moatd: gr\xc3\xbc\xc3\x9f\n");
}

static void a_long_line_is_cut_and_still_one_line(void **state)
{
    struct capture *capture = *state;
    char text[8000];

    for (int filler = 0; filler < 2; filler++) {
        memset(text, filler ? '\n' : 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        log_init("moatd", LOG_LEVEL_INFO);
        log_info("%s", text);
        const char *line = capture_line(capture);
        assert_true(strlen(line) > 1024 && strlen(line) <= 2048);
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
        assert_string_equal(capture_line(capture), "");
    }
}

static void errno_is_kept(void **state)
{
    (void)state;
    log_init("moatd", LOG_LEVEL_INFO);
    errno = EXDEV;
    log_info("x");
    assert_int_equal(errno, EXDEV);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, capture_start, capture_stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_line_begins_with_the_program),
        TEST(levels_above_the_maximum_are_silent),
        TEST(the_journal_gets_levels),
        TEST(an_inherited_journal_stream_is_not_believed),
        TEST(control_characters_are_escaped),
        TEST(a_long_line_is_cut_and_still_one_line),
        TEST(errno_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
