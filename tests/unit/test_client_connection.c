/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client library against a socket that plays the daemon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "moat/moat.h"

struct daemon {
    char folder[32];
    char path[64];
    int listener;
    int peer; /* the accepted connection */
    struct moat *moat;
};

static int daemon_start(void **state)
{
    struct daemon *daemon = calloc(1, sizeof(*daemon));
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    assert_non_null(daemon);
    snprintf(daemon->folder, sizeof(daemon->folder), "/tmp/moat-test-XXXXXX");
    assert_non_null(mkdtemp(daemon->folder));
    snprintf(daemon->path, sizeof(daemon->path), "%s/sock", daemon->folder);
    memcpy(address.sun_path, daemon->path, strlen(daemon->path) + 1);
    daemon->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(daemon->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(daemon->listener, 1), 0);
    assert_int_equal(moat_connect(daemon->path, &daemon->moat), 0);
    daemon->peer = accept(daemon->listener, NULL, NULL);
    assert_true(daemon->peer >= 0);
    *state = daemon;
    return 0;
}

static int daemon_stop(void **state)
{
    struct daemon *daemon = *state;

    moat_close(daemon->moat);
    if (daemon->peer >= 0)
        close(daemon->peer);
    close(daemon->listener);
    unlink(daemon->path);
    rmdir(daemon->folder);
    free(daemon);
    return 0;
}

static void say(const struct daemon *daemon, const char *text)
{
    assert_int_equal(write(daemon->peer, text, strlen(text)), (ssize_t)strlen(text));
}

static void assert_line(struct daemon *daemon, const char *expected)
{
    _cleanup_free_ char *line = NULL;
    size_t length;
    int fd;

    assert_int_equal(moat_receive(daemon->moat, 1000, &line, &length, &fd), 0);
    assert_string_equal(line, expected);
    assert_int_equal(length, strlen(expected));
    assert_int_equal(fd, -1);
}

static void say_with_fd(const struct daemon *daemon, const char *text, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    char copy[128];
    struct iovec part = {.iov_base = copy, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    memcpy(copy, text, strlen(text) + 1);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    assert_int_equal(sendmsg(daemon->peer, &message, 0), (ssize_t)strlen(text));
}

static void nobody_listening_is_an_error_number(void **state)
{
    struct moat *moat;

    (void)state;
    assert_int_equal(moat_connect("/nonexistent/moat.sock", &moat), -ENOENT);
    setenv("MOAT_SOCKET", "/nonexistent/other.sock", 1);
    assert_int_equal(moat_connect(NULL, &moat), -ENOENT);
    unsetenv("MOAT_SOCKET");
}

static void lines_are_taken_apart_and_put_together(void **state)
{
    struct daemon *daemon = *state;
    char *line;
    size_t length;

    say(daemon, "{\"a\":1}\n\n{\"b\"");
    assert_line(daemon, "{\"a\":1}");
    assert_line(daemon, "");
    assert_int_equal(moat_receive(daemon->moat, 0, &line, &length, NULL), -ETIMEDOUT);
    say(daemon, ":2}\n");
    assert_line(daemon, "{\"b\":2}");
}

static void long_lines_arrive_whole(void **state)
{
    struct daemon *daemon = *state;
    enum { SIZE = 300000 };
    _cleanup_free_ char *sent = malloc(SIZE + 2);
    _cleanup_free_ char *line = NULL;
    size_t length;
    size_t done = 0;

    memset(sent, 'x', SIZE);
    sent[SIZE] = '\n';
    fcntl(daemon->peer, F_SETFL, O_NONBLOCK);
    while (done < SIZE + 1) {
        ssize_t n = write(daemon->peer, sent + done, SIZE + 1 - done);

        if (n > 0)
            done += (size_t)n;
        else
            assert_int_equal(moat_receive(daemon->moat, 0, &line, &length, NULL), -ETIMEDOUT);
    }
    assert_int_equal(moat_receive(daemon->moat, 1000, &line, &length, NULL), 0);
    assert_int_equal(length, SIZE);
    assert_memory_equal(line, sent, SIZE);
}

static void the_end_is_an_error_after_the_last_line(void **state)
{
    struct daemon *daemon = *state;
    char *line;
    size_t length;

    say(daemon, "last\nhalf");
    close(daemon->peer);
    daemon->peer = -1;
    assert_line(daemon, "last");
    assert_int_equal(moat_receive(daemon->moat, 1000, &line, &length, NULL), -ECONNRESET);
}

static void a_descriptor_comes_with_its_line(void **state)
{
    struct daemon *daemon = *state;
    _cleanup_close_ int sent = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int fd = -1;
    _cleanup_free_ char *line = NULL;
    struct stat a;
    struct stat b;
    size_t length;

    say(daemon, "before\n");
    say_with_fd(daemon, "with\n", sent);
    say(daemon, "after\n");
    assert_line(daemon, "before");
    assert_int_equal(moat_receive(daemon->moat, 1000, &line, &length, &fd), 0);
    assert_string_equal(line, "with");
    assert_true(fd >= 0);
    fstat(sent, &a);
    fstat(fd, &b);
    assert_int_equal(a.st_ino, b.st_ino);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_line(daemon, "after");
}

static void descriptors_are_sent_with_their_line(void **state)
{
    struct daemon *daemon = *state;
    _cleanup_close_ int sent = open("/dev/null", O_RDONLY | O_CLOEXEC);
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    char buffer[64] = "";
    struct iovec part = {.iov_base = buffer, .iov_len = sizeof(buffer) - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int fd;

    assert_int_equal(moat_send(daemon->moat, "{}", 2, &sent, 1), 0);
    assert_int_equal(recvmsg(daemon->peer, &message, 0), 3);
    assert_string_equal(buffer, "{}\n");
    assert_non_null(CMSG_FIRSTHDR(&message));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    close(fd);
}

static void *answer(void *userdata)
{
    struct daemon *daemon = userdata;
    char request[256];
    ssize_t n = read(daemon->peer, request, sizeof(request) - 1);

    request[n > 0 ? n : 0] = '\0';
    if (strcmp(request, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"network.get\",\"params\":{"
                        "\"name\":\"a\"}}\n") == 0)
        say(daemon, "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{\"type\":\"x\"}}\n"
                    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    else
        say(daemon, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{}}\n");
    return NULL;
}

static void a_call_waits_for_its_answer_and_keeps_events(void **state)
{
    struct daemon *daemon = *state;
    _cleanup_free_ char *response = NULL;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, answer, daemon), 0);
    assert_int_equal(moat_call(daemon->moat, "network.get", "{\"name\":\"a\"}", &response), 0);
    pthread_join(thread, NULL);
    assert_string_equal(response, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
    assert_line(daemon, "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{\"type\":\"x\"}}");
}

static void a_call_is_one_line(void **state)
{
    struct daemon *daemon = *state;
    char *response;

    assert_int_equal(moat_call(daemon->moat, "a\"b", NULL, &response), -EINVAL);
    assert_int_equal(moat_call(daemon->moat, "a", "{\n}", &response), -EINVAL);
}

int main(void)
{
#define WITH_DAEMON(test) cmocka_unit_test_setup_teardown(test, daemon_start, daemon_stop)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_listening_is_an_error_number),
        WITH_DAEMON(lines_are_taken_apart_and_put_together),
        WITH_DAEMON(long_lines_arrive_whole),
        WITH_DAEMON(the_end_is_an_error_after_the_last_line),
        WITH_DAEMON(a_descriptor_comes_with_its_line),
        WITH_DAEMON(descriptors_are_sent_with_their_line),
        WITH_DAEMON(a_call_waits_for_its_answer_and_keeps_events),
        WITH_DAEMON(a_call_is_one_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
