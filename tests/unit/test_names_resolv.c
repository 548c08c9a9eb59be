/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "names/resolv.h"

#define WAIT_MS 2000 /* what the contract promises */

/* Servers as text, "" for none. */
static const char *servers_text(const struct ips *servers, char text[1024])
{
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < servers->count; i++) {
        char address[IP_TEXT_MAX];

        length += (size_t)snprintf(text + length, 1024 - length, "%s%s", i ? " " : "",
                                   ip_format(&servers->items[i], address));
    }
    return text;
}

static void lines_are_read_as_libc_does(void **state)
{
    static const struct {
        const char *text;
        const char *servers;
    } rows[] = {
        {"", ""},
        {"nameserver 10.0.0.1\n", "10.0.0.1"},
        {"nameserver 10.0.0.1", "10.0.0.1"},
        {"nameserver\t10.0.0.1 \nnameserver 2001:db8::1\n", "10.0.0.1 2001:db8::1"},
        {"  nameserver 10.0.0.1\r\nnameserver 10.0.0.2 # second\n", "10.0.0.1 10.0.0.2"},
        {"# nameserver 10.0.0.1\n;nameserver 10.0.0.2\n", ""},
        {"nameserver 10.0.0.1\nnameserver 10.0.0.1\n", "10.0.0.1"},
        {"nameserver\nnameserver x\nnameservers 10.0.0.1\nnameserver 10.0.0\n", ""},
        {"nameserver fe80::1%eth0\nnameserver 0.0.0.0\nnameserver ::\n", ""},
        {"search example.org\noptions edns0\nnameserver 127.0.0.53\n", "127.0.0.53"},
        {"nameserver 1111111111111111111111111111111111111111111111111111111111111111.1\n", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct ips servers;
        char text[1024];

        assert_int_equal(resolv_parse(rows[i].text, &servers), 0);
        assert_string_equal(servers_text(&servers, text), rows[i].servers);
        ips_deinit(&servers);
    }
}

/* --- watching --- */

struct fixture {
    char directory[64];
    char path[128];
    struct loop *loop;
    struct loop_timer *timer;
    struct resolv *resolv;
    bool expired;
};

static void changed(void *userdata)
{
    loop_stop(((struct fixture *)userdata)->loop);
}

static void timer_expired(void *userdata)
{
    struct fixture *fixture = userdata;

    fixture->expired = true;
    loop_stop(fixture->loop);
}

static const char *path_in(const struct fixture *fixture, const char *name, char path[128])
{
    snprintf(path, 128, "%s/%s", fixture->directory, name);
    return path;
}

static void write_file(const struct fixture *fixture, const char *name, const char *text)
{
    char path[128];
    _cleanup_fclose_ FILE *file = fopen(path_in(fixture, name, path), "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error error = ERROR_INIT;

    if (!fixture || loop_new(&fixture->loop, &error) < 0)
        return -1;
    snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/test-resolv-XXXXXX");
    if (!mkdtemp(fixture->directory))
        return -1;
    path_in(fixture, "resolv.conf", fixture->path);
    fixture->timer = loop_timer_new(fixture->loop, timer_expired, fixture);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {
        "resolv.conf", "new", "a/resolv.conf", "b/resolv.conf", "link", "a", "b"};
    struct fixture *fixture = *state;

    resolv_free(fixture->resolv);
    loop_timer_free(fixture->timer);
    loop_free(fixture->loop);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char path[128];

        remove(path_in(fixture, names[i], path));
    }
    rmdir(fixture->directory);
    free(fixture);
    return 0;
}

static void watch(struct fixture *fixture)
{
    struct error error = ERROR_INIT;

    assert_int_equal(
        resolv_new(fixture->loop, fixture->path, changed, fixture, &fixture->resolv, &error), 0);
}

/* The servers become these within the time. */
static void expect(struct fixture *fixture, const char *servers)
{
    char text[1024];

    fixture->expired = false;
    loop_timer_start(fixture->timer, WAIT_MS);
    while (!fixture->expired &&
           strcmp(servers_text(resolv_servers(fixture->resolv), text), servers) != 0)
        loop_run(fixture->loop);
    loop_timer_stop(fixture->timer);
    assert_string_equal(servers_text(resolv_servers(fixture->resolv), text), servers);
}

static void rewritten_renamed_removed(void **state)
{
    struct fixture *fixture = *state;
    char path[128];

    watch(fixture);
    expect(fixture, "");
    write_file(fixture, "resolv.conf", "nameserver 10.0.0.1\n"); /* it appears */
    expect(fixture, "10.0.0.1");
    write_file(fixture, "resolv.conf", "nameserver 10.0.0.2\n");
    expect(fixture, "10.0.0.2");
    write_file(fixture, "new", "nameserver 10.0.0.3\n");
    assert_int_equal(rename(path_in(fixture, "new", path), fixture->path), 0);
    expect(fixture, "10.0.0.3");
    write_file(fixture, "resolv.conf", "nameserver 10.0.0.4\n");
    expect(fixture, "10.0.0.4");
    assert_int_equal(unlink(fixture->path), 0);
    expect(fixture, "");
}

static void links_are_followed(void **state)
{
    struct fixture *fixture = *state;
    char path[128];

    assert_int_equal(mkdir(path_in(fixture, "a", path), 0700), 0);
    assert_int_equal(mkdir(path_in(fixture, "b", path), 0700), 0);
    write_file(fixture, "a/resolv.conf", "nameserver 10.0.0.1\n");
    assert_int_equal(symlink("a/resolv.conf", fixture->path), 0);
    watch(fixture);
    expect(fixture, "10.0.0.1");
    write_file(fixture, "a/resolv.conf", "nameserver 10.0.0.2\n"); /* the file behind the link */
    expect(fixture, "10.0.0.2");
    assert_int_equal(unlink(fixture->path), 0); /* the link, to what is not there yet */
    assert_int_equal(symlink("b/resolv.conf", fixture->path), 0);
    expect(fixture, "");
    write_file(fixture, "b/resolv.conf", "nameserver 10.0.0.3\n");
    expect(fixture, "10.0.0.3");
    /* A link in the middle of a chain, in a directory that is not watched. */
    assert_int_equal(symlink("a", path_in(fixture, "link", path)), 0);
    assert_int_equal(unlink(fixture->path), 0);
    assert_int_equal(symlink("link/resolv.conf", fixture->path), 0);
    expect(fixture, "10.0.0.2");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("b", path), 0);
    expect(fixture, "10.0.0.3");
}

static void a_fifo_does_not_hang(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(mkfifo(fixture->path, 0600), 0);
    watch(fixture);
    expect(fixture, "");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_read_as_libc_does),
        TEST(rewritten_renamed_removed),
        TEST(links_are_followed),
        TEST(a_fifo_does_not_hang),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
