/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/spread.h"
#include "base/yield.h"

/* What was asked of the function that does what is urgent. */
static struct asked {
    unsigned calls;
    int fd;
    int timeout_ms;
    bool possible; /* to yield, from inside */
} asked;

static void ask(void *userdata, int fd, int timeout_ms)
{
    struct asked *to = userdata;

    to->calls++;
    to->fd = fd;
    to->timeout_ms = timeout_ms;
    to->possible = yield_is_possible();
    yield_if_due(); /* leads nowhere */
}

static int start(void **state)
{
    (void)state;
    asked = (struct asked){0};
    yield_begin(ask, &asked);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    yield_end();
    return 0;
}

/* Until it is due; fails after a second of the processor. */
static void work(void)
{
    unsigned before = asked.calls;
    clock_t begin = clock();

    while (asked.calls == before) {
        yield_if_due();
        assert_true(clock() - begin < CLOCKS_PER_SEC);
    }
}

static void long_work_gives_way_now_and_then(void **state)
{
    (void)state;
    work();
    assert_int_equal(asked.fd, -1);
    assert_false(asked.possible);
    for (unsigned i = 0; i < 3; i++)
        work();
    assert_int_equal(asked.calls, 4);
}

/* A call right behind another one has nothing to give. */
static void short_work_does_not(void **state)
{
    unsigned calls;

    (void)state;
    work();
    calls = asked.calls;
    for (unsigned i = 0; i < 3; i++)
        yield_if_due();
    assert_in_range(asked.calls, calls,
                    calls + 1); /* a machine may stop for longer than it takes */
}

static void waiting_gives_way(void **state)
{
    (void)state;
    yield_poll(7, 1234);
    assert_int_equal(asked.calls, 1);
    assert_int_equal(asked.fd, 7);
    assert_int_equal(asked.timeout_ms, 1234);
}

static void nothing_is_urgent_while_held(void **state)
{
    int pair[2];

    (void)state;
    assert_int_equal(pipe(pair), 0);
    assert_int_equal(write(pair[1], "x", 1), 1);
    assert_true(yield_is_possible());
    yield_hold();
    yield_hold();
    yield_release();
    assert_false(yield_is_possible());
    yield_poll(pair[0], 5000); /* readable */
    assert_int_equal(asked.calls, 0);
    yield_release();
    work();
    close(pair[0]);
    close(pair[1]);
}

static void *other_thread(void *userdata)
{
    bool *possible = userdata;

    *possible = yield_is_possible();
    return NULL;
}

static void other_threads_are_not_concerned(void **state)
{
    pthread_t thread;
    bool possible = true;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, other_thread, &possible), 0);
    pthread_join(thread, NULL);
    assert_false(possible);
    yield_end();
    assert_false(yield_is_possible());
    yield_if_due();
    assert_int_equal(asked.calls, 0);
}

/* --- spread --- */

#define ITEMS 10007

static _Atomic unsigned done[ITEMS];
static uint32_t fails_from;

static int do_item(void *userdata, uint32_t index)
{
    const uint32_t *count = userdata;

    assert_true(index < *count);
    if (index >= fails_from)
        return -EADDRINUSE;
    done[index]++;
    return 0;
}

static int run_spread(uint32_t count, uint32_t worth, uint32_t *ret_index)
{
    memset(done, 0, sizeof(done));
    return spread(count, worth, do_item, &count, ret_index);
}

static void each_item_is_done_once(void **state)
{
    static const uint32_t counts[] = {0, 1, 15, 16, 17, 255, ITEMS};
    uint32_t index;

    (void)state;
    fails_from = ITEMS;
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        assert_int_equal(run_spread(counts[i], 64, &index), 0);
        for (uint32_t j = 0; j < ITEMS; j++)
            assert_int_equal(done[j], j < counts[i]);
    }
}

static void the_first_that_fails_is_named(void **state)
{
    static const uint32_t places[] = {0, 5, 16, 4242};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        uint32_t index = ITEMS;

        fails_from = places[i];
        assert_int_equal(run_spread(ITEMS, 64, &index), -EADDRINUSE);
        assert_int_equal(index, places[i]);
        for (uint32_t j = 0; j < places[i]; j++)
            assert_int_equal(done[j], 1);
    }
}

static void spread_work_gives_way(void **state)
{
    uint32_t index;
    clock_t begin = clock();

    (void)state;
    fails_from = ITEMS;
    while (asked.calls == 0) {
        assert_int_equal(run_spread(ITEMS, ITEMS, &index), 0);
        assert_true(clock() - begin < CLOCKS_PER_SEC);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(long_work_gives_way_now_and_then),
        TEST(short_work_does_not),
        TEST(waiting_gives_way),
        TEST(nothing_is_urgent_while_held),
        TEST(other_threads_are_not_concerned),
        TEST(each_item_is_done_once),
        TEST(the_first_that_fails_is_named),
        TEST(spread_work_gives_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
