/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Each turn of the loop, which has looked at all sockets before, takes what goes first and then one
 * step of one other client. Detaches go first, which are short, which others' attaches must not
 * hold up, and which go together where they come together; so do answers that have become ready.
 * Clients of one queue take turns.
 *
 * A request that the service can't take yet is parked. While one waits until all is settled, no
 * other ordinary request begins, or it could wait for ever; detaches still go.
 *
 * They also go in the middle of a long request, where that is prepared for it (base/yield.h): new
 * connections, lines and answers are looked at, and detaches are taken. Everything else that
 * happens meanwhile, the end of a connection too, has its turn when the request is answered. */
#include <string.h>
#include <sys/prctl.h>

#include "base/yield.h"
#include "rpc/client.h"

#define URGENT_METHOD "\"guest.detach\""
#define PATIENCE_LOOK_MS 10
#define URGENT_LOOK 512 /* bytes of a line in which the method is looked for */

static void queue_push(struct queue *queue, struct client *client)
{
    client->behind = NULL;
    client->queued = true;
    if (queue->last)
        queue->last->behind = client;
    else
        queue->first = client;
    queue->last = client;
}

static void queue_push_first(struct queue *queue, struct client *client)
{
    client->behind = queue->first;
    client->queued = true;
    queue->first = client;
    if (!queue->last)
        queue->last = client;
}

static void queue_remove(struct queue *queue, struct client *client)
{
    struct client *before = NULL;
    struct client *at = queue->first;

    while (at && at != client) {
        before = at;
        at = at->behind;
    }
    if (!at)
        return;
    if (before)
        before->behind = client->behind;
    else
        queue->first = client->behind;
    if (queue->last == client)
        queue->last = before;
    client->queued = false;
}

/* Only a guess from the text: what it is wrong about is answered all the same, in its turn. */
static bool line_is_urgent(const struct client *client, size_t length)
{
    return memmem(client->input.data, length < URGENT_LOOK ? length : URGENT_LOOK, URGENT_METHOD,
                  strlen(URGENT_METHOD)) != NULL;
}

void turn_queue_line(struct client *client, size_t line_length)
{
    struct rpc *rpc = client->rpc;

    queue_push(line_is_urgent(client, line_length) ? &rpc->urgent : &rpc->ordinary, client);
    loop_timer_start(rpc->turn, 0);
}

void turn_queue_work(struct client *client)
{
    if (client->queued)
        return;
    queue_push(&client->rpc->urgent, client);
    loop_timer_start(client->rpc->turn, 0);
}

/* Of requests that wait at most so long before the loop waits for them. A relay that hangs is ended
 * sooner (nat/reserve.h). */
static const unsigned patience_ms[] = {[CALL_UNTIL_SETTLED] = 100, [CALL_UNTIL_RELEASED] = 5000};

static void park(struct client *client, enum call_wait wait)
{
    struct rpc *rpc = client->rpc;

    if (client->work.parked == CALL_UNTIL_SETTLED)
        rpc->n_settling--;
    client->work.parked = wait;
    if (wait == CALL_UNTIL_SETTLED)
        rpc->n_settling++;
    if (!rpc->n_settling && rpc->ordinary.first)
        loop_timer_start(rpc->turn, 0);
}

static bool is_patient(const struct client *client)
{
    return loop_now_ms(client->rpc->loop) < client->work.patience_ms;
}

bool turn_park(struct client *client)
{
    struct work *work = &client->work;
    struct rpc *rpc = client->rpc;
    enum call_wait wait = dispatch_wait(&work->call);

    if (wait != CALL_READY && work->waited != wait) {
        work->waited = wait;
        work->patience_ms = loop_now_ms(rpc->loop) + patience_ms[wait];
    }
    if (wait != CALL_READY && !rpc->between && (work->impatient || !is_patient(client)))
        wait = CALL_READY;
    park(client, wait);
    if (wait != CALL_READY && !loop_timer_is_active(rpc->patience))
        loop_timer_start(rpc->patience, PATIENCE_LOOK_MS);
    return wait != CALL_READY;
}

void turn_end_patience(struct client *client)
{
    client->work.impatient = true;
}

void turn_unpark_ready(struct client *client)
{
    struct rpc *rpc = client->rpc;

    if (!client->work.parked)
        return;
    if (is_patient(client) && dispatch_wait(&client->work.call) != CALL_READY) {
        if (!loop_timer_is_active(rpc->patience))
            loop_timer_start(rpc->patience, PATIENCE_LOOK_MS);
        return;
    }
    park(client, CALL_READY);
    queue_push_first(&rpc->ordinary, client);
    loop_timer_start(rpc->turn, 0);
}

void turn_leave(struct client *client)
{
    park(client, CALL_READY);
    if (!client->queued)
        return;
    queue_remove(&client->rpc->urgent, client);
    queue_remove(&client->rpc->ordinary, client);
}

/* The next of the queue; whoever is left in any has a turn of his own. */
static struct client *take(struct rpc *rpc, struct queue *queue)
{
    struct client *client = queue->first;

    if (client)
        queue_remove(queue, client);
    if (rpc->urgent.first || (rpc->ordinary.first && !rpc->n_settling))
        loop_timer_start(rpc->turn, 0);
    return client;
}

/* --- in the middle of a request --- */

#define URGENT_TURNS_MAX 32 /* of clients that go first, while others wait */

void turn_urgent(struct rpc *rpc)
{
    struct client *client;

    for (unsigned i = 0; i < URGENT_TURNS_MAX && (client = take(rpc, &rpc->urgent)); i++)
        client_turn(client);
    service_detach_flush(rpc->service);
}

/* Whoever is woken by an answer, or by anything else that we do, is often woken on the processor
 * that we are on, since the kernel takes it that we sleep soon (WF_SYNC, kernel/sched/fair.c); and
 * we have more claim to it than they (base/priority.h). So we do sleep, for a moment: each time
 * while there are detaches, else once in a millisecond. */
#define PAUSE_US 30
#define BUSY_MS 10 /* so long there are detaches after one was there */

static int64_t pause_us(struct rpc *rpc)
{
    uint64_t now_ms = loop_now_ms(rpc->loop);

    if (now_ms - rpc->urgent_ms > BUSY_MS && now_ms == rpc->paused_ms)
        return 0;
    rpc->paused_ms = now_ms;
    return PAUSE_US;
}

static void go_between(void *userdata, int fd, int timeout_ms)
{
    struct rpc *rpc = userdata;

    rpc->between = true;
    loop_run_urgent(rpc->loop, fd,
                    rpc->urgent.first ? 0
                    : fd < 0          ? pause_us(rpc)
                                      : (int64_t)timeout_ms * 1000);
    if (rpc->urgent.first)
        rpc->urgent_ms = loop_now_ms(rpc->loop);
    turn_urgent(rpc);
    turn_urgent(rpc); /* and those who were answered */
    rpc->between = false;
}

void turn_dispatch(struct client *client)
{
    struct rpc *rpc = client->rpc;
    struct call *call = &client->work.call;
    bool yields = !rpc->between && !rpc->ending && dispatch_yields(call);

    if (yields) {
        prctl(PR_SET_TIMERSLACK, 1UL); /* ns: else a pause takes 50 µs more */
        service_work_begin(rpc->service);
        yield_begin(go_between, rpc);
    }
    dispatch(call);
    if (yields) {
        yield_end();
        service_work_end(rpc->service);
        rpc->worked = true;
        prctl(PR_SET_TIMERSLACK, 0UL); /* as it was */
    }
}

struct client *turn_take(struct rpc *rpc)
{
    return rpc->n_settling ? NULL : take(rpc, &rpc->ordinary);
}
