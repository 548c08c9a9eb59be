/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "base/background.h"
#include "base/cleanup.h"
#include "base/yield.h"

#define GUARD_MS 5000
#define COUNT 200

struct fixture {
    struct loop *loop;
    struct loop_timer *guard;
    struct background *background;
    pthread_t main;
    unsigned ran;  /* by the thread only, read when it has settled */
    unsigned told; /* by the loop only */
    unsigned stop_at;
    struct loop_timer *timer;
    unsigned turns;
};

struct counted {
    struct job job;
    struct fixture *fixture;
    unsigned number;
    bool again; /* submits the next of the array when it is told of */
    bool settles;
};

static void guard_expired(void *userdata)
{
    (void)userdata;
    fail_msg("the loop was not stopped in time");
}

static int fixture_start(void **state)
{
    static struct fixture fixture;
    struct error error = ERROR_INIT;

    fixture = (struct fixture){.main = pthread_self()};
    if (loop_new(&fixture.loop, &error) < 0 ||
        background_new(fixture.loop, "test", &fixture.background, &error) < 0)
        return -1;
    fixture.guard = loop_timer_new(fixture.loop, guard_expired, NULL);
    loop_timer_start(fixture.guard, GUARD_MS);
    *state = &fixture;
    return 0;
}

static int fixture_stop(void **state)
{
    struct fixture *fixture = *state;

    background_free(fixture->background);
    loop_timer_free(fixture->timer);
    loop_timer_free(fixture->guard);
    loop_free(fixture->loop);
    return 0;
}

static void count_run(struct job *job)
{
    struct counted *counted = (struct counted *)job;

    assert_false(pthread_equal(pthread_self(), counted->fixture->main));
    assert_int_equal(counted->fixture->ran, counted->number);
    counted->fixture->ran++;
}

static void count_told(struct job *job)
{
    struct counted *counted = (struct counted *)job;
    struct fixture *fixture = counted->fixture;

    assert_true(pthread_equal(pthread_self(), fixture->main));
    assert_int_equal(fixture->told, counted->number);
    fixture->told++;
    if (counted->again)
        background_submit(fixture->background, &counted[1].job);
    if (counted->settles)
        background_settle(fixture->background);
    if (fixture->told == fixture->stop_at)
        loop_stop(fixture->loop);
}

static void prepare(struct fixture *fixture, struct counted *jobs, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        jobs[i] = (struct counted){
            .job = {.run = count_run, .done = count_told}, .fixture = fixture, .number = i};
}

static void jobs_run_in_order_and_the_loop_hears_of_each(void **state)
{
    struct fixture *fixture = *state;
    struct counted jobs[COUNT];

    prepare(fixture, jobs, COUNT);
    fixture->stop_at = COUNT;
    for (unsigned i = 0; i < COUNT; i++)
        background_submit(fixture->background, &jobs[i].job);
    loop_run(fixture->loop);
    assert_int_equal(fixture->told, COUNT);
}

static void settling_waits_for_all_and_tells_of_them(void **state)
{
    struct fixture *fixture = *state;
    struct counted jobs[COUNT];

    prepare(fixture, jobs, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        background_submit(fixture->background, &jobs[i].job);
    background_settle(fixture->background);
    assert_int_equal(fixture->ran, COUNT);
    assert_int_equal(fixture->told, COUNT);
    background_settle(fixture->background); /* nothing to wait for */
}

static void what_is_submitted_when_a_job_is_told_of_is_settled_too(void **state)
{
    struct fixture *fixture = *state;
    struct counted jobs[COUNT];

    prepare(fixture, jobs, COUNT);
    for (unsigned i = 0; i + 1 < COUNT; i++)
        jobs[i].again = true;
    background_submit(fixture->background, &jobs[0].job);
    background_settle(fixture->background);
    assert_int_equal(fixture->told, COUNT);
}

static void settling_while_a_job_is_told_of_settles_the_others(void **state)
{
    struct fixture *fixture = *state;
    struct counted jobs[3];

    prepare(fixture, jobs, ARRAY_SIZE(jobs));
    jobs[0].settles = true;
    fixture->stop_at = 3;
    for (unsigned i = 0; i < ARRAY_SIZE(jobs); i++)
        background_submit(fixture->background, &jobs[i].job);
    loop_run(fixture->loop);
    assert_int_equal(fixture->told, 3);
}

static void freeing_settles(void **state)
{
    struct fixture *fixture = *state;
    struct counted jobs[COUNT];

    prepare(fixture, jobs, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        background_submit(fixture->background, &jobs[i].job);
    background_free(TAKE_PTR(fixture->background));
    assert_int_equal(fixture->told, COUNT);
}

static void take_turn(void *userdata)
{
    struct fixture *fixture = userdata;

    fixture->turns++;
    if (fixture->told < fixture->stop_at)
        loop_timer_start(fixture->timer, 0);
}

/* Two jobs that have run are told of in two turns, so a timer that is due comes in between. */
static void the_loop_goes_on_between_two_jobs(void **state)
{
    struct fixture *fixture = *state;
    struct counted jobs[COUNT];

    prepare(fixture, jobs, COUNT);
    fixture->stop_at = COUNT;
    fixture->timer = loop_timer_new(fixture->loop, take_turn, fixture);
    loop_timer_start(fixture->timer, 0);
    for (unsigned i = 0; i < COUNT; i++)
        background_submit(fixture->background, &jobs[i].job);
    loop_run(fixture->loop);
    assert_true(fixture->turns >= COUNT - 1);
}

/* In its turn, and nobody else is told of it; those before it are told of later. */
static void one_can_be_waited_for(void **state)
{
    struct fixture *fixture = *state;
    struct counted jobs[COUNT];

    prepare(fixture, jobs, COUNT);
    fixture->stop_at = COUNT - 1;
    for (unsigned i = 0; i + 1 < COUNT; i++)
        background_submit(fixture->background, &jobs[i].job);
    background_run(fixture->background, &jobs[COUNT - 1].job);
    assert_int_equal(fixture->ran, COUNT);
    assert_int_equal(fixture->told, 0);
    assert_false(background_is_idle(fixture->background));
    loop_run(fixture->loop);
    assert_int_equal(fixture->told, COUNT - 1);
    assert_true(background_is_idle(fixture->background));
    fixture->ran = 0;
    background_run(fixture->background, &jobs[0].job);
    assert_true(background_is_idle(fixture->background));
}

/* One more is submitted whenever somebody waits. */
struct between {
    struct fixture *fixture;
    struct counted *next;
    struct counted *end;
};

static void submit_one(void *userdata, int fd, int timeout_ms)
{
    struct between *between = userdata;
    struct pollfd readable = {.fd = fd, .events = POLLIN};

    if (between->next < between->end)
        background_submit(between->fixture->background, &between->next++->job);
    poll(&readable, 1, timeout_ms);
}

static void what_is_urgent_goes_on_while_one_is_waited_for(void **state)
{
    struct fixture *fixture = *state;
    struct counted jobs[2];
    struct between between = {fixture, jobs + 1, jobs + 2};

    prepare(fixture, jobs, ARRAY_SIZE(jobs));
    fixture->told = 1;
    yield_begin(submit_one, &between);
    background_run(fixture->background, &jobs[0].job);
    yield_end();
    background_settle(fixture->background);
    assert_int_equal(fixture->ran, between.next - jobs);
    assert_int_equal(fixture->told, between.next - jobs);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_start, fixture_stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(jobs_run_in_order_and_the_loop_hears_of_each),
        TEST(settling_waits_for_all_and_tells_of_them),
        TEST(what_is_submitted_when_a_job_is_told_of_is_settled_too),
        TEST(settling_while_a_job_is_told_of_settles_the_others),
        TEST(freeing_settles),
        TEST(the_loop_goes_on_between_two_jobs),
        TEST(one_can_be_waited_for),
        TEST(what_is_urgent_goes_on_while_one_is_waited_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
