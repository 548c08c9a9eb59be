/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The service manager's store, with a socket that plays the manager. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fdstore.h"

struct manager {
    char name[64]; /* as in $NOTIFY_SOCKET */
    int fd;
};

static void manager_open(struct manager *manager)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length;

    snprintf(manager->name, sizeof(manager->name), "@moat-test-fdstore-%d", getpid());
    memcpy(address.sun_path + 1, manager->name + 1, strlen(manager->name) - 1);
    length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(manager->name));
    manager->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(manager->fd, (struct sockaddr *)&address, length), 0);
}

/* What the manager was told next; *ret_fd: what came along, or -1. "" is nothing. */
static const char *told(const struct manager *manager, int *ret_fd)
{
    static char text[512];
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {.iov_base = text, .iov_len = sizeof(text) - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t length = recvmsg(manager->fd, &message, MSG_CMSG_CLOEXEC);

    *ret_fd = -1;
    text[length > 0 ? length : 0] = '\0';
    if (length > 0 && CMSG_FIRSTHDR(&message))
        memcpy(ret_fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    return text;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void names_are_kept_and_forgotten(void **state)
{
    struct manager manager;
    struct fdstore *store;
    struct stat sent;
    struct stat got;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int fd;

    (void)state;
    manager_open(&manager);
    store = fdstore_new(manager.name);
    assert_non_null(store);
    fdstore_put(store, "moat-a", null);
    assert_string_equal(told(&manager, &fd), "FDSTORE=1\nFDPOLL=0\nFDNAME=moat-a");
    assert_int_equal(fstat(fd, &got), 0);
    assert_int_equal(fstat(null, &sent), 0);
    assert_int_equal(got.st_rdev, sent.st_rdev);
    close(fd);
    fdstore_remove(store, "moat-a");
    assert_string_equal(told(&manager, &fd), "FDSTOREREMOVE=1\nFDNAME=moat-a");
    assert_int_equal(fd, -1);
    fdstore_free(store);
    close(null);
    close(manager.fd);
}

static void what_came_is_taken_once(void **state)
{
    struct manager manager;
    struct fdstore *store;
    int fds[4];
    int fd;

    (void)state;
    manager_open(&manager);
    store = fdstore_new(manager.name);
    for (int i = 0; i < 4; i++)
        fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    fdstore_add(store, "moat-a", fds[0]);
    fdstore_add(store, "moat-b", fds[1]);
    fdstore_add(store, "other", fds[2]);
    assert_false(is_open(fds[2]));
    assert_int_equal(fdstore_take(store, "moat-b"), fds[1]);
    assert_int_equal(fdstore_take(store, "moat-b"), -1);
    assert_int_equal(fdstore_take(store, "other"), -1);
    fdstore_settle(store);
    assert_false(is_open(fds[0]));
    assert_true(is_open(fds[1]));
    assert_string_equal(told(&manager, &fd), "FDSTOREREMOVE=1\nFDNAME=moat-a");
    assert_string_equal(told(&manager, &fd), "");
    fdstore_add(store, "moat-c", fds[3]);
    fdstore_free(store); /* without a word: the next moatd may want it */
    assert_false(is_open(fds[3]));
    assert_string_equal(told(&manager, &fd), "");
    close(fds[1]);
    close(manager.fd);
}

/* A manager that does not read is given up, and holds nobody up. */
static void a_manager_that_hangs_is_given_up(void **state)
{
    struct manager manager;
    struct fdstore *store;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int count = 0;
    int fd;

    (void)state;
    manager_open(&manager);
    store = fdstore_new(manager.name);
    for (int i = 0; i < 2000; i++)
        fdstore_put(store, "moat-a", null);
    while (told(&manager, &fd)[0]) {
        close(fd);
        count++;
    }
    assert_in_range(count, 1, 1999);
    fdstore_put(store, "moat-a", null);
    assert_string_equal(told(&manager, &fd), "");
    fdstore_free(store);
    close(null);
    close(manager.fd);
}

static void without_a_manager_nothing_happens(void **state)
{
    (void)state;
    assert_null(fdstore_new("/no/such/socket"));
    assert_null(fdstore_new(""));
    fdstore_add(NULL, "moat-a", open("/dev/null", O_RDONLY | O_CLOEXEC));
    fdstore_put(NULL, "moat-a", 0);
    fdstore_remove(NULL, "moat-a");
    fdstore_settle(NULL);
    assert_int_equal(fdstore_take(NULL, "moat-a"), -1);
    fdstore_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_kept_and_forgotten),
        cmocka_unit_test(what_came_is_taken_once),
        cmocka_unit_test(a_manager_that_hangs_is_given_up),
        cmocka_unit_test(without_a_manager_nothing_happens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
