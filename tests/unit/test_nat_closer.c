/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "nat/closer.h"

#define COUNT 600
#define GUARD_MS 5000

struct fixture {
    struct loop *loop;
    struct loop_timer *guard;
    struct closer *closer;
    uint64_t ready; /* up to this one */
    unsigned closed;
    unsigned stop_at;
    int fds[2][COUNT];
};

static bool is_ready(void *userdata, uint64_t release)
{
    const struct fixture *fixture = userdata;

    return release <= fixture->ready;
}

/* Maybe once for both. */
static void on_closed(void *userdata)
{
    struct fixture *fixture = userdata;

    fixture->closed++;
    if (closer_has_closed(fixture->closer, fixture->stop_at))
        loop_stop(fixture->loop);
}

static void guard_expired(void *userdata)
{
    (void)userdata;
    fail_msg("nothing was closed in time");
}

static int start(void **state)
{
    static struct fixture fixture;
    struct error error = ERROR_INIT;

    fixture = (struct fixture){0};
    for (unsigned i = 0; i < 2; i++)
        for (unsigned j = 0; j < COUNT; j++)
            fixture.fds[i][j] = j % 7 == 3 ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (loop_new(&fixture.loop, &error) < 0 ||
        closer_new(fixture.loop, is_ready, on_closed, &fixture, &fixture.closer, &error) < 0)
        return -1;
    fixture.guard = loop_timer_new(fixture.loop, guard_expired, NULL);
    loop_timer_start(fixture.guard, GUARD_MS);
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *fixture = *state;

    closer_free(fixture->closer);
    loop_timer_free(fixture->guard);
    loop_free(fixture->loop);
    return 0;
}

static unsigned open_fds(const int *fds)
{
    unsigned count = 0;

    for (unsigned i = 0; i < COUNT; i++)
        count += fds[i] >= 0 && fcntl(fds[i], F_GETFD) >= 0;
    return count;
}

static void add(struct fixture *fixture, const int *fds, uint64_t release)
{
    int given[COUNT];

    memcpy(given, fds, sizeof(given));
    closer_add(fixture->closer, given, COUNT, release);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(given[i], -1);
}

static void add_both(struct fixture *fixture)
{
    add(fixture, fixture->fds[0], 7);
    add(fixture, fixture->fds[1], 9);
    assert_int_equal(closer_added(fixture->closer), 2);
}

static void run_until(struct fixture *fixture, unsigned closed)
{
    fixture->stop_at = closed;
    loop_run(fixture->loop);
}

static void a_range_is_closed_when_it_is_ready_and_not_before(void **state)
{
    struct fixture *fixture = *state;
    unsigned all = open_fds(fixture->fds[0]);

    assert_true(all > COUNT / 2);
    add_both(fixture);
    fixture->ready = 6;
    closer_look(fixture->closer);
    assert_true(closer_has_closed(fixture->closer, 0));
    assert_false(closer_has_closed(fixture->closer, 1));
    fixture->ready = 8;
    closer_look(fixture->closer);
    run_until(fixture, 1);
    assert_int_equal(open_fds(fixture->fds[0]), 0);
    assert_int_equal(open_fds(fixture->fds[1]), all);
    assert_true(closer_has_closed(fixture->closer, 1));
    assert_false(closer_has_closed(fixture->closer, 2));
    fixture->ready = 9;
    closer_look(fixture->closer);
    run_until(fixture, 2);
    assert_int_equal(open_fds(fixture->fds[1]), 0);
    assert_true(closer_has_closed(fixture->closer, 2));
}

static void what_is_ready_already_needs_no_look(void **state)
{
    struct fixture *fixture = *state;

    fixture->ready = 9;
    add_both(fixture);
    run_until(fixture, 2);
    assert_true(closer_has_closed(fixture->closer, 2));
}

/* And nobody is told before the loop runs. */
static void what_is_ready_can_be_waited_for(void **state)
{
    struct fixture *fixture = *state;

    add_both(fixture);
    assert_false(closer_wait(fixture->closer, 2, 0));
    fixture->ready = 8;
    assert_true(closer_wait(fixture->closer, 1, GUARD_MS));
    assert_int_equal(open_fds(fixture->fds[0]), 0);
    assert_true(open_fds(fixture->fds[1]) > 0);
    assert_false(closer_wait(fixture->closer, 2, 1));
    fixture->ready = 9;
    assert_true(closer_wait(fixture->closer, 2, GUARD_MS));
    assert_int_equal(open_fds(fixture->fds[1]), 0);
    assert_int_equal(fixture->closed, 0);
}

static void what_is_closed_is_urgent(void **state)
{
    struct fixture *fixture = *state;

    fixture->ready = 9;
    add_both(fixture);
    while (fixture->closed < 1 || !closer_has_closed(fixture->closer, 2))
        loop_run_urgent(fixture->loop, -1, GUARD_MS * 1000);
}

static void freeing_closes_everything(void **state)
{
    struct fixture *fixture = *state;

    add_both(fixture);
    closer_free(TAKE_PTR(fixture->closer));
    assert_int_equal(open_fds(fixture->fds[0]) + open_fds(fixture->fds[1]), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_range_is_closed_when_it_is_ready_and_not_before),
        TEST(what_is_ready_already_needs_no_look),
        TEST(what_is_ready_can_be_waited_for),
        TEST(what_is_closed_is_urgent),
        TEST(freeing_closes_everything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
