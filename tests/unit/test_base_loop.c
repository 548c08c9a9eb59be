/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"

#define GUARD_MS 5000

/* What a test's callbacks share. The guard ends a loop that would never stop. */
struct fixture {
    struct loop *loop;
    struct loop_timer *guard;
    int pair[2];
    struct loop_io *io;
    struct loop_io *other_io;
    struct loop_timer *timer;
    struct loop_wake *wake;
    struct loop_signal *signal;
    unsigned calls;
    unsigned events;
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

    fixture = (struct fixture){0};
    if (loop_new(&fixture.loop, &error) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fixture.pair) < 0)
        return -1;
    fixture.guard = loop_timer_new(fixture.loop, guard_expired, NULL);
    loop_timer_start(fixture.guard, GUARD_MS);
    *state = &fixture;
    return 0;
}

static int fixture_stop(void **state)
{
    struct fixture *fixture = *state;

    loop_io_free(fixture->io);
    loop_io_free(fixture->other_io);
    loop_timer_free(fixture->timer);
    loop_timer_free(fixture->guard);
    loop_wake_free(fixture->wake);
    loop_signal_free(fixture->signal);
    loop_free(fixture->loop);
    close(fixture->pair[0]);
    close(fixture->pair[1]);
    return 0;
}

static void stop_after_io(void *userdata, unsigned events)
{
    struct fixture *fixture = userdata;

    fixture->calls++;
    fixture->events = events;
    loop_stop(fixture->loop);
}

static void stop_after_timer(void *userdata)
{
    struct fixture *fixture = userdata;

    fixture->calls++;
    loop_stop(fixture->loop);
}

static void a_descriptor_reports_what_was_asked(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write(f->pair[1], "x", 1), 1);
    f->io = loop_io_new(f->loop, f->pair[0], LOOP_READ, stop_after_io, f);
    loop_run(f->loop);
    assert_int_equal(f->events, LOOP_READ);

    loop_io_set_events(f->io, LOOP_WRITE);
    loop_run(f->loop);
    assert_int_equal(f->events, LOOP_WRITE);

    loop_io_set_events(f->io, LOOP_READ | LOOP_WRITE);
    loop_run(f->loop);
    assert_int_equal(f->events, LOOP_READ | LOOP_WRITE);
    assert_int_equal(f->calls, 3);
}

static void a_closed_peer_is_readable(void **state)
{
    struct fixture *f = *state;

    shutdown(f->pair[1], SHUT_WR);
    f->io = loop_io_new(f->loop, f->pair[0], LOOP_READ, stop_after_io, f);
    loop_run(f->loop);
    assert_int_equal(f->events, LOOP_READ);
}

static void no_events_pause_a_descriptor(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write(f->pair[1], "x", 1), 1);
    f->io = loop_io_new(f->loop, f->pair[0], 0, stop_after_io, f);
    f->timer = loop_timer_new(f->loop, stop_after_timer, f);
    loop_timer_start(f->timer, 10);
    loop_run(f->loop);
    assert_int_equal(f->calls, 1);
    assert_int_equal(f->events, 0);

    loop_io_set_events(f->io, LOOP_READ);
    loop_io_set_events(f->io, 0);
    loop_timer_start(f->timer, 10);
    loop_run(f->loop);
    assert_int_equal(f->events, 0);

    loop_io_set_events(f->io, LOOP_READ);
    loop_run(f->loop);
    assert_int_equal(f->events, LOOP_READ);
}

static void free_both_and_stop(void *userdata, unsigned events)
{
    struct fixture *f = userdata;

    (void)events;
    f->calls++;
    loop_io_free(f->io);
    loop_io_free(f->other_io);
    f->io = NULL;
    f->other_io = NULL;
    loop_timer_start(f->timer, 0);
}

/* Both are ready in the same turn; whichever comes first frees both, and the other must not be
 * called. */
static void a_callback_may_free_its_own_watcher_and_others(void **state)
{
    struct fixture *f = *state;

    f->io = loop_io_new(f->loop, f->pair[0], LOOP_WRITE, free_both_and_stop, f);
    f->other_io = loop_io_new(f->loop, f->pair[1], LOOP_WRITE, free_both_and_stop, f);
    f->timer = loop_timer_new(f->loop, stop_after_timer, f);
    loop_run(f->loop);
    assert_int_equal(f->calls, 2);
}

static void note_read(void *userdata, unsigned events)
{
    struct fixture *f = userdata;

    (void)events;
    loop_io_set_events(f->io, 0);
    f->calls++;
}

static void note_and_stop(void *userdata)
{
    struct fixture *f = userdata;

    f->events = f->calls; /* what was called before */
    loop_stop(f->loop);
}

static void a_timer_may_be_the_last_of_its_turn(void **state)
{
    struct fixture *f = *state;

    f->timer = loop_timer_new(f->loop, note_and_stop, f);
    loop_timer_set_last(f->timer);
    for (unsigned i = 1; i <= 3; i++) {
        f->calls = 0;
        if (!f->io)
            f->io = loop_io_new(f->loop, f->pair[0], LOOP_WRITE, note_read, f);
        else
            loop_io_set_events(f->io, LOOP_WRITE);
        loop_timer_start(f->timer, 0);
        loop_run(f->loop);
        assert_int_equal(f->events, 1);
    }
}

static void free_timer_and_stop(void *userdata)
{
    struct fixture *f = userdata;

    loop_timer_free(f->timer);
    f->timer = NULL;
    f->calls++;
    loop_stop(f->loop);
}

static void a_timer_may_free_itself(void **state)
{
    struct fixture *f = *state;

    f->timer = loop_timer_new(f->loop, free_timer_and_stop, f);
    loop_timer_start(f->timer, 1);
    loop_run(f->loop);
    assert_int_equal(f->calls, 1);
}

static void a_timer_fires_once_and_not_early(void **state)
{
    struct fixture *f = *state;
    uint64_t start_ms = loop_now_ms(f->loop);

    f->timer = loop_timer_new(f->loop, stop_after_timer, f);
    assert_false(loop_timer_is_active(f->timer));
    loop_timer_start(f->timer, 30);
    assert_true(loop_timer_is_active(f->timer));
    loop_run(f->loop);
    assert_true(loop_now_ms(f->loop) - start_ms >= 29);
    assert_false(loop_timer_is_active(f->timer));
    assert_int_equal(f->calls, 1);
}

static void a_second_start_moves_a_timer(void **state)
{
    struct fixture *f = *state;

    f->timer = loop_timer_new(f->loop, stop_after_timer, f);
    loop_timer_start(f->timer, GUARD_MS * 10);
    loop_timer_start(f->timer, 0);
    loop_run(f->loop);
    assert_int_equal(f->calls, 1);
    loop_timer_start(f->timer, 0);
    loop_timer_stop(f->timer);
    assert_false(loop_timer_is_active(f->timer));
}

static void restart_until_five(void *userdata)
{
    struct fixture *f = userdata;

    if (++f->calls == 5)
        loop_stop(f->loop);
    else
        loop_timer_start(f->timer, 0);
}

static void a_timer_may_start_itself_again(void **state)
{
    struct fixture *f = *state;

    f->timer = loop_timer_new(f->loop, restart_until_five, f);
    loop_timer_start(f->timer, 0);
    loop_run(f->loop);
    assert_int_equal(f->calls, 5);
}

static void stop_after_signal(void *userdata, int signal_number)
{
    struct fixture *f = userdata;

    f->events = (unsigned)signal_number;
    loop_stop(f->loop);
}

static void a_signal_is_delivered_in_the_loop(void **state)
{
    struct fixture *f = *state;

    f->signal = loop_signal_new(f->loop, SIGUSR1, stop_after_signal, f);
    raise(SIGUSR1);
    loop_run(f->loop);
    assert_int_equal(f->events, SIGUSR1);
}

static void *send_wakes(void *userdata)
{
    struct fixture *f = userdata;

    for (int i = 0; i < 1000; i++)
        loop_wake_send(f->wake);
    return NULL;
}

static void count_wake(void *userdata)
{
    struct fixture *f = userdata;

    f->calls++;
    loop_stop(f->loop);
}

static void another_thread_wakes_the_loop(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;

    f->wake = loop_wake_new(f->loop, count_wake, f);
    assert_int_equal(pthread_create(&thread, NULL, send_wakes, f), 0);
    loop_run(f->loop);
    pthread_join(thread, NULL);
    assert_true(f->calls >= 1);
}

static void freeing_nothing_is_allowed(void **state)
{
    (void)state;
    loop_free(NULL);
    loop_io_free(NULL);
    loop_timer_free(NULL);
    loop_signal_free(NULL);
    loop_wake_free(NULL);
}

/* --- what is urgent --- */

static void read_one(void *userdata, unsigned events)
{
    struct fixture *fixture = userdata;
    char byte;

    fixture->events = events;
    if (read(fixture->pair[0], &byte, 1) == 1)
        fixture->calls++;
}

static void never_now(void *userdata)
{
    (void)userdata;
    fail_msg("a timer was called in the middle of something else");
}

static void is_called(void *userdata)
{
    struct fixture *fixture = userdata;

    fixture->calls += 100;
}

static void make_urgent(struct fixture *fixture)
{
    fixture->io = loop_io_new(fixture->loop, fixture->pair[0], LOOP_READ, read_one, fixture);
    assert_non_null(fixture->io);
    loop_io_set_urgent(fixture->io, read_one);
}

static void send_one(struct fixture *fixture)
{
    assert_int_equal(write(fixture->pair[1], "x", 1), 1);
}

static void what_is_urgent_can_be_called_alone(void **state)
{
    struct fixture *fixture = *state;

    make_urgent(fixture);
    fixture->timer = loop_timer_new(fixture->loop, never_now, NULL);
    loop_timer_start(fixture->timer, 0);
    fixture->wake = loop_wake_new(fixture->loop, never_now, NULL);
    loop_wake_send(fixture->wake);
    loop_run_urgent(fixture->loop, -1, 0);
    assert_int_equal(fixture->calls, 0);
    for (unsigned i = 1; i <= 3; i++) {
        send_one(fixture);
        loop_run_urgent(fixture->loop, -1, 5000000);
        assert_int_equal(fixture->calls, i);
        assert_int_equal(fixture->events, LOOP_READ);
    }
}

static void a_wake_can_be_urgent(void **state)
{
    struct fixture *fixture = *state;

    fixture->wake = loop_wake_new(fixture->loop, is_called, fixture);
    loop_wake_set_urgent(fixture->wake);
    loop_wake_send(fixture->wake);
    loop_wake_send(fixture->wake);
    loop_run_urgent(fixture->loop, -1, 5000000);
    assert_int_equal(fixture->calls, 100);
    loop_run_urgent(fixture->loop, -1, 0);
    assert_int_equal(fixture->calls, 100);
}

static void waiting_for_what_is_urgent_ends_with_another_descriptor(void **state)
{
    struct fixture *fixture = *state;
    int pair[2];

    make_urgent(fixture);
    assert_int_equal(pipe(pair), 0);
    assert_int_equal(write(pair[1], "x", 1), 1);
    loop_run_urgent(fixture->loop, pair[0], 60000000);
    assert_int_equal(fixture->calls, 0);
    close(pair[0]);
    close(pair[1]);
}

/* What came while it was paused is not lost, whether the edge was seen then or not. */
static void a_paused_watcher_is_not_called_and_hears_of_it_later(void **state)
{
    struct fixture *fixture = *state;

    make_urgent(fixture);
    for (unsigned seen = 0; seen < 2; seen++) {
        loop_io_set_events(fixture->io, 0);
        send_one(fixture);
        if (seen)
            loop_run_urgent(fixture->loop, -1, 0);
        assert_int_equal(fixture->calls, seen);
        loop_io_set_events(fixture->io, LOOP_READ);
        loop_run_urgent(fixture->loop, -1, 5000000);
        assert_int_equal(fixture->calls, seen + 1);
    }
}

static void free_itself(void *userdata, unsigned events)
{
    struct fixture *fixture = userdata;

    (void)events;
    fixture->calls++;
    loop_io_free(TAKE_PTR(fixture->io));
}

static void an_urgent_watcher_may_free_itself(void **state)
{
    struct fixture *fixture = *state;

    fixture->io = loop_io_new(fixture->loop, fixture->pair[0], LOOP_READ, free_itself, fixture);
    loop_io_set_urgent(fixture->io, free_itself);
    send_one(fixture);
    loop_run_urgent(fixture->loop, -1, 5000000);
    send_one(fixture);
    loop_run_urgent(fixture->loop, -1, 0);
    assert_int_equal(fixture->calls, 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_start, fixture_stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_descriptor_reports_what_was_asked),
        TEST(a_closed_peer_is_readable),
        TEST(no_events_pause_a_descriptor),
        TEST(a_callback_may_free_its_own_watcher_and_others),
        TEST(a_timer_may_be_the_last_of_its_turn),
        TEST(a_timer_may_free_itself),
        TEST(a_timer_fires_once_and_not_early),
        TEST(a_second_start_moves_a_timer),
        TEST(a_timer_may_start_itself_again),
        TEST(a_signal_is_delivered_in_the_loop),
        TEST(another_thread_wakes_the_loop),
        TEST(what_is_urgent_can_be_called_alone),
        TEST(a_wake_can_be_urgent),
        TEST(waiting_for_what_is_urgent_ends_with_another_descriptor),
        TEST(a_paused_watcher_is_not_called_and_hears_of_it_later),
        TEST(an_urgent_watcher_may_free_itself),
        cmocka_unit_test(freeing_nothing_is_allowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
