/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A *question* is a name, type and set of servers that somebody waits for. It makes *attempts*: one
 * server, one socket of its own (connected, so that the kernel drops what comes from elsewhere, on
 * a port that the kernel draws), an id drawn at random, the name's case drawn at random (0x20)
 * where the server keeps it: RFC 5452. An answer must have the id, the question and its case, or it
 * is none.
 *
 * first: the best server is asked. Servers that failed or were slow are asked beside it now and
 * then, only to see how they do: such a *probe* answers nobody while the fuse burns.
 *
 * fuse: after 250 ms, or at once when a server can't or won't answer, the next one is asked too;
 * the first good answer wins. When all have been asked they are asked again, at longer distances.
 * After a truncated answer all of this goes by TCP.
 *
 * over: everybody has been answered. Attempts without an answer go on for a while, so that a late
 * answer and none are told apart: that is what orders the servers.
 *
 * stale: where expired entries of the cache may be used (RFC 8767), they answer those that wait
 * when all servers failed, or after 1.8 s; then the question goes on, for the cache's sake.
 *
 * A question is in the table (others may join) until it is over. It ends 4.5 s after it was asked,
 * before the usual client (5 s) gives up. */
#include "worker/dns_forward.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "worker/dns_table.h"

#define FUSE_MS 250
#define AGAIN_MS 1000 /* between rounds; doubled each time */
#define TCP_FUSE_MS 2000
#define DEADLINE_MS 4500
#define STALE_MS 1800
#define LINGER_MS 1500
#define ATTEMPTS_MAX 16
#define FAIR_WAITERS 64 /* an asker with more makes room itself when sockets run out */
#define READS_MAX 8     /* datagrams taken from one socket in one turn */

struct attempt {
    struct attempt *next;
    struct dns_question *question;
    struct dns_server *server;
    struct loop_io *io;
    int fd;
    uint16_t id;
    bool probe;
    bool tcp;
    bool edns;
    bool folded; /* sent without 0x20 */
    uint64_t sent_us;
    /* TCP only: what is sent, then what is received, with the length before each */
    size_t position;
    size_t length;
    uint8_t *buffer;
};

struct dns_question {
    struct dns_forward *forward;
    struct dns_question *newer; /* all that are not over, by age; those that are in another list */
    struct dns_question *older;
    struct dns_upstreams *upstreams; /* owned reference */
    struct dns_waiter *waiters;
    struct attempt *attempts;
    struct loop_timer *timer;
    uint64_t started_ms;
    uint64_t
        due_ms; /* when the timer's own work is to be done; it may be woken before for `stale` */
    uint32_t hash;
    unsigned asked; /* attempts of the regular order, so far */
    uint16_t type;
    uint16_t flags; /* as in the cache's key */
    uint16_t bad_rcode;
    bool has_bad_rcode;
    bool fuse_over;
    bool tcp;
    bool over;
    bool stale_tried;
    struct dns_server *order[DNS_UPSTREAMS_MAX];
    uint8_t cased[DNS_NAME_MAX]; /* the name with its case drawn at random */
    struct dns_name name;
};

struct question_list {
    struct dns_question *oldest;
    struct dns_question *newest;
};

struct dns_forward {
    struct dns_forward_config config;
    struct dns_table questions;
    struct question_list running;
    struct question_list over;
    struct dns_forward_stats stats;
    uint32_t n_sockets;
    size_t random_left;
    uint8_t random[256];
    uint8_t buffer[DNS_MESSAGE_MAX + 1];
};

static void attempt_ready(void *userdata, unsigned events);

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void random_bytes(struct dns_forward *forward, void *bytes, size_t length)
{
    if (forward->random_left < length) {
        while (getrandom(forward->random, sizeof(forward->random), 0) != sizeof(forward->random))
            continue; /* interrupted before the pool was ready */
        forward->random_left = sizeof(forward->random);
    }
    forward->random_left -= length;
    memcpy(bytes, forward->random + forward->random_left, length);
    memset(forward->random + forward->random_left, 0, length);
}

/* --- lists --- */

static void list_append(struct question_list *list, struct dns_question *question)
{
    question->newer = NULL;
    question->older = list->newest;
    if (list->newest)
        list->newest->newer = question;
    else
        list->oldest = question;
    list->newest = question;
}

static void list_remove(struct question_list *list, struct dns_question *question)
{
    if (question->older)
        question->older->newer = question->newer;
    else
        list->oldest = question->newer;
    if (question->newer)
        question->newer->older = question->older;
    else
        list->newest = question->older;
}

static void waiter_link(struct dns_question *question, struct dns_waiter *waiter)
{
    struct dns_quota *quota = waiter->quota;

    waiter->question = question;
    waiter->prev = NULL;
    waiter->next = question->waiters;
    if (waiter->next)
        waiter->next->prev = waiter;
    question->waiters = waiter;

    waiter->newer = NULL;
    waiter->older = quota->newest;
    if (quota->newest)
        quota->newest->newer = waiter;
    else
        quota->oldest = waiter;
    quota->newest = waiter;
    quota->n_waiters++;
}

static void waiter_unlink(struct dns_waiter *waiter)
{
    struct dns_quota *quota = waiter->quota;

    if (waiter->prev)
        waiter->prev->next = waiter->next;
    else
        waiter->question->waiters = waiter->next;
    if (waiter->next)
        waiter->next->prev = waiter->prev;
    waiter->question = NULL;

    if (waiter->older)
        waiter->older->newer = waiter->newer;
    else
        quota->oldest = waiter->newer;
    if (waiter->newer)
        waiter->newer->older = waiter->older;
    else
        quota->newest = waiter->older;
    quota->n_waiters--;
}

/* --- attempts: life --- */

static void attempt_free(struct attempt *attempt)
{
    struct dns_question *question = attempt->question;
    struct attempt **link = &question->attempts;

    while (*link != attempt)
        link = &(*link)->next;
    *link = attempt->next;
    loop_io_free(attempt->io);
    if (attempt->fd >= 0) {
        close(attempt->fd);
        question->forward->n_sockets--;
    }
    free(attempt->buffer);
    free(attempt);
}

static void question_free(struct dns_question *question)
{
    struct dns_forward *forward = question->forward;

    while (question->attempts)
        attempt_free(question->attempts);
    list_remove(question->over ? &forward->over : &forward->running, question);
    if (!question->over)
        dns_table_remove(&forward->questions, question->hash, question);
    loop_timer_free(question->timer);
    dns_upstreams_put(question->upstreams);
    free(question);
}

/* --- the end of a question --- */

static void waiters_answer(struct dns_question *question, const struct dns_stored *stored)
{
    while (question->waiters) {
        struct dns_waiter *waiter = question->waiters;

        waiter_unlink(waiter);
        waiter->ops->answer(waiter, stored);
    }
}

/* Answers all that wait. The question is over then, and freed when no attempt is left to learn
 * from. */
static void question_finish(struct dns_question *question, const struct dns_stored *stored)
{
    struct dns_forward *forward = question->forward;

    dns_table_remove(&forward->questions, question->hash, question);
    list_remove(&forward->running, question);
    list_append(&forward->over, question);
    question->over = true;
    waiters_answer(question, stored);
    if (question->attempts)
        loop_timer_start(question->timer, LINGER_MS);
    else
        question_free(question);
}

static void question_key(const struct dns_question *question, struct dns_cache_key *ret_key)
{
    *ret_key = (struct dns_cache_key){.upstreams = question->upstreams->id,
                                      .type = question->type,
                                      .flags = question->flags,
                                      .name = &question->name};
}

/* What the cache had before it expired; once for each question. */
static bool question_find_stale(struct dns_question *question, struct dns_stored *ret_stored)
{
    struct dns_forward *forward = question->forward;
    struct dns_cache_key key;

    question_key(question, &key);
    question->stale_tried = true;
    if (!forward->config.stale ||
        !dns_cache_find_stale(forward->config.cache, &key, loop_now_ms(forward->config.loop),
                              ret_stored))
        return false;
    forward->stats.stale++;
    return true;
}

/* No server had a good answer: a stale one, the rcode of one that had a bad one, or none. */
static void question_fail(struct dns_question *question)
{
    struct dns_stored bad = {.rcode = question->bad_rcode};
    struct dns_stored stale;

    question->forward->stats.failed++;
    if (question->waiters && question_find_stale(question, &stale))
        question_finish(question, &stale);
    else
        question_finish(question, question->has_bad_rcode ? &bad : NULL);
}

/* Those that have not answered by now do not. */
static void attempts_expire(struct dns_question *question)
{
    uint64_t now_ms = loop_now_ms(question->forward->config.loop);

    while (question->attempts) {
        dns_server_failed(question->attempts->server, now_ms);
        attempt_free(question->attempts);
    }
}

static void question_answered(struct dns_question *question, const struct dns_answer *answer,
                              const uint8_t *data)
{
    struct dns_forward *forward = question->forward;
    struct dns_cache_key key;
    struct dns_stored stored;

    if (forward->config.refuses && !question->upstreams->trusted &&
        forward->config.refuses(forward->config.userdata, data, answer)) {
        struct dns_stored refused = {.rcode = DNS_RCODE_REFUSED, .ede = DNS_EDE_BLOCKED};

        forward->stats.refused++;
        question_finish(question, &refused);
        return;
    }
    question_key(question, &key);
    dns_cache_put(forward->config.cache, &key, answer, data, loop_now_ms(forward->config.loop));
    dns_stored_from_answer(&stored, answer, data);
    question_finish(question, &stored);
}

/* --- attempts: asking --- */

static size_t attempt_build(const struct attempt *attempt, uint8_t data[DNS_QUESTION_MAX])
{
    const struct dns_question *question = attempt->question;

    return dns_question_build(data, attempt->id,
                              attempt->folded ? question->name.wire : question->cased,
                              question->name.length, question->type, question->flags & DNS_FLAG_CD,
                              attempt->edns, question->flags & DNS_CACHE_DO);
}

static bool attempt_send_udp(struct attempt *attempt)
{
    uint8_t data[DNS_QUESTION_MAX];
    size_t length = attempt_build(attempt, data);

    return send(attempt->fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)length;
}

static bool attempt_prepare_tcp(struct attempt *attempt)
{
    attempt->buffer = malloc(2 + DNS_QUESTION_MAX);
    if (!attempt->buffer)
        return false;
    attempt->length = attempt_build(attempt, attempt->buffer + 2) + 2;
    dns_write_u16(attempt->buffer, (uint16_t)(attempt->length - 2));
    return true;
}

static int attempt_connect(const struct dns_forward *forward, const struct ip *ip, bool tcp)
{
    struct sockaddr_storage address;
    socklen_t length = ip_to_sockaddr(ip, forward->config.port, &address);
    _cleanup_close_ int fd =
        socket(ip->family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, length) < 0 && errno != EINPROGRESS)
        return -errno;
    return TAKE_FD(fd);
}

static bool attempt_open(struct attempt *attempt)
{
    struct dns_forward *forward = attempt->question->forward;

    attempt->fd = attempt_connect(forward, &attempt->server->ip, attempt->tcp);
    if (attempt->fd < 0)
        return false;
    forward->n_sockets++;
    attempt->io = loop_io_new(forward->config.loop, attempt->fd,
                              attempt->tcp ? LOOP_WRITE : LOOP_READ, attempt_ready, attempt);
    if (!attempt->io)
        return false;
    return attempt->tcp ? attempt_prepare_tcp(attempt) : attempt_send_udp(attempt);
}

/* Asks this server too. False when that can't even begin: no route, nobody there, no descriptor
 * left. */
static bool attempt_start(struct dns_question *question, struct dns_server *server, bool probe)
{
    struct dns_forward *forward = question->forward;
    struct attempt *attempt;

    if (forward->n_sockets >= forward->config.max_sockets)
        return false;
    attempt = calloc(1, sizeof(*attempt));
    if (!attempt)
        return false;
    attempt->question = question;
    attempt->server = server;
    attempt->fd = -1;
    attempt->probe = probe;
    attempt->tcp = question->tcp;
    attempt->edns = !server->plain;
    attempt->folded = server->folds_case;
    attempt->sent_us = now_us();
    random_bytes(forward, &attempt->id, sizeof(attempt->id));
    attempt->next = question->attempts;
    question->attempts = attempt;
    if (attempt_open(attempt))
        return true;
    if (errno != EMFILE && errno != ENFILE)
        dns_server_failed(server, loop_now_ms(forward->config.loop));
    attempt_free(attempt);
    return false;
}

static bool question_has_attempt(const struct dns_question *question)
{
    const struct attempt *attempt = question->attempts;

    while (attempt && attempt->probe && !question->fuse_over)
        attempt = attempt->next;
    return attempt != NULL;
}

/* Until the next attempt: the fuse while there are servers that were not asked, then ever longer.
 */
static uint64_t question_delay(const struct dns_question *question)
{
    uint32_t count = question->upstreams->count;
    uint64_t delay = AGAIN_MS;

    if (question->tcp)
        return TCP_FUSE_MS;
    if (question->asked < count)
        return FUSE_MS;
    for (uint32_t asked = 2 * count; asked <= question->asked && count > 0; asked += count)
        delay *= 2;
    return delay;
}

static uint64_t stale_due_ms(const struct dns_question *question)
{
    if (!question->forward->config.stale || question->stale_tried)
        return UINT64_MAX;
    return question->started_ms + STALE_MS;
}

static void question_timer_start(struct dns_question *question)
{
    uint64_t now_ms = loop_now_ms(question->forward->config.loop);
    uint64_t stale_ms = stale_due_ms(question);
    uint64_t at_ms = stale_ms < question->due_ms ? stale_ms : question->due_ms;

    loop_timer_start(question->timer, at_ms > now_ms ? at_ms - now_ms : 0);
}

static void question_arm(struct dns_question *question)
{
    uint64_t elapsed = loop_now_ms(question->forward->config.loop) - question->started_ms;
    uint64_t left = elapsed < DEADLINE_MS ? DEADLINE_MS - elapsed : 0;
    uint64_t delay = question_delay(question);

    if (question->asked >= ATTEMPTS_MAX || delay > left)
        delay = left;
    question->due_ms = loop_now_ms(question->forward->config.loop) + delay;
    question_timer_start(question);
}

/* Asks the next server that can be asked, in the order, at most once around. False: none can. */
static bool question_ask_next(struct dns_question *question)
{
    uint32_t count = question->upstreams->count;
    bool started = false;

    for (uint32_t i = 0; i < count && !started && question->asked < ATTEMPTS_MAX; i++)
        started = attempt_start(question, question->order[question->asked++ % count], false);
    question_arm(question);
    return started;
}

/* A server can't or won't answer: the next, or, where all have been asked and none is left that may
 * answer, the end. */
static void question_advance(struct dns_question *question)
{
    question->fuse_over = true;
    if (question->asked < question->upstreams->count && question_ask_next(question))
        return;
    if (!question_has_attempt(question))
        question_fail(question);
}

static void question_expired(void *userdata)
{
    struct dns_question *question = userdata;
    uint64_t now_ms = loop_now_ms(question->forward->config.loop);

    if (question->over) {
        attempts_expire(question);
        question_free(question);
        return;
    }
    if (stale_due_ms(question) <= now_ms) {
        struct dns_stored stale;

        if (question_find_stale(question, &stale))
            waiters_answer(question, &stale);
    }
    if (now_ms < question->due_ms) {
        question_timer_start(question);
        return;
    }
    if (now_ms - question->started_ms >= DEADLINE_MS) {
        attempts_expire(question);
        question_fail(question);
        return;
    }
    question->fuse_over = true;
    for (struct attempt *attempt = question->attempts; attempt; attempt = attempt->next)
        dns_server_slow(attempt->server, (uint32_t)(now_us() - attempt->sent_us), now_ms);
    if (!question_ask_next(question) && !question_has_attempt(question))
        question_fail(question);
}

/* --- attempts: answers --- */

enum verdict {
    VERDICT_STRAY, /* answers nothing that was asked */
    VERDICT_GOOD,
    VERDICT_BAD,       /* the server does not answer this */
    VERDICT_TRUNCATED, /* ask again by TCP */
    VERDICT_PLAIN,     /* ask again without EDNS */
    VERDICT_FOLDED,    /* ask again without 0x20 */
};

static bool rcode_means_plain(uint16_t rcode)
{
    return rcode == DNS_RCODE_FORMERR || rcode == DNS_RCODE_NOTIMP || rcode == DNS_RCODE_BADVERS;
}

static enum verdict answer_judge(const struct attempt *attempt, const struct dns_answer *answer,
                                 const uint8_t *data)
{
    const struct dns_question *question = attempt->question;
    const struct dns_name *name = &question->name;
    bool good = answer->rcode == DNS_RCODE_NOERROR || answer->rcode == DNS_RCODE_NXDOMAIN;

    if (answer->id != attempt->id || (good && !answer->has_question))
        return VERDICT_STRAY;
    if (answer->has_question && (answer->type != question->type || answer->class != DNS_CLASS_IN ||
                                 answer->name.length != name->length ||
                                 memcmp(answer->name.wire, name->wire, name->length) != 0))
        return VERDICT_STRAY;
    if (answer->has_question && !attempt->folded &&
        memcmp(data + DNS_HEADER_SIZE, question->cased, name->length) != 0)
        return VERDICT_FOLDED;
    if (attempt->edns && rcode_means_plain(answer->rcode))
        return VERDICT_PLAIN;
    if (answer->flags & DNS_FLAG_TC)
        return attempt->tcp ? VERDICT_BAD : VERDICT_TRUNCATED;
    return good ? VERDICT_GOOD : VERDICT_BAD;
}

static void server_note(struct attempt *attempt, enum verdict verdict, uint16_t rcode)
{
    struct dns_server *server = attempt->server;

    if (verdict == VERDICT_PLAIN)
        server->plain = true;
    if (verdict == VERDICT_FOLDED)
        server->folds_case = true;
    if (verdict == VERDICT_BAD && rcode != DNS_RCODE_SERVFAIL)
        dns_server_failed(server, loop_now_ms(attempt->question->forward->config.loop));
    else
        dns_server_answered(server, (uint32_t)(now_us() - attempt->sent_us));
}

/* The attempt is gone; the same server is asked in another way. */
static void question_ask_again(struct dns_question *question, struct dns_server *server)
{
    if (attempt_start(question, server, false))
        question_arm(question);
    else
        question_advance(question);
}

static void verdict_act(struct dns_question *question, struct dns_server *server,
                        enum verdict verdict, const struct dns_answer *answer, const uint8_t *data)
{
    switch (verdict) {
    case VERDICT_STRAY:
        break;
    case VERDICT_GOOD:
        question_answered(question, answer, data);
        break;
    case VERDICT_BAD:
        question->bad_rcode = answer->flags & DNS_FLAG_TC ? DNS_RCODE_SERVFAIL : answer->rcode;
        question->has_bad_rcode = true;
        question_advance(question);
        break;
    case VERDICT_TRUNCATED:
        question->tcp = true;
        question_ask_again(question, server);
        break;
    case VERDICT_PLAIN:
    case VERDICT_FOLDED:
        question_ask_again(question, server);
        break;
    }
}

/* One message from the attempt's server; data is not the attempt's own. True when it was a stray
 * one: the attempt is there still. */
static bool attempt_received(struct attempt *attempt, const uint8_t *data, size_t length)
{
    struct dns_question *question = attempt->question;
    struct dns_server *server = attempt->server;
    struct dns_answer answer;
    enum verdict verdict = VERDICT_STRAY;
    bool ignored = question->over || (attempt->probe && !question->fuse_over);

    if (dns_answer_parse(data, length, &answer))
        verdict = answer_judge(attempt, &answer, data);
    if (verdict == VERDICT_STRAY) {
        question->forward->stats.strays++;
        return true;
    }
    server_note(attempt, verdict, answer.rcode);
    attempt_free(attempt);
    if (!ignored)
        verdict_act(question, server, verdict, &answer, data);
    else if (question->over && !question->attempts)
        question_free(question);
    return false;
}

/* The kernel says that it is in vain: port closed, no route, connection reset. */
static void attempt_broken(struct attempt *attempt)
{
    struct dns_question *question = attempt->question;
    bool ignored = question->over || (attempt->probe && !question->fuse_over);

    dns_server_failed(attempt->server, loop_now_ms(question->forward->config.loop));
    attempt_free(attempt);
    if (!ignored)
        question_advance(question);
    else if (question->over && !question->attempts)
        question_free(question);
}

static void attempt_ready_udp(struct attempt *attempt)
{
    struct dns_forward *forward = attempt->question->forward;

    for (int i = 0; i < READS_MAX; i++) {
        ssize_t length = recv(attempt->fd, forward->buffer, sizeof(forward->buffer), MSG_DONTWAIT);

        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (length < 0) {
            attempt_broken(attempt);
            return;
        }
        if (!attempt_received(attempt, forward->buffer, (size_t)length))
            return;
    }
}

/* --- attempts: TCP --- */

/* True when all of the question is out. */
static bool attempt_tcp_write(struct attempt *attempt)
{
    ssize_t sent = send(attempt->fd, attempt->buffer + attempt->position,
                        attempt->length - attempt->position, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        attempt_broken(attempt);
        return false;
    }
    if (sent > 0)
        attempt->position += (size_t)sent;
    return attempt->position == attempt->length;
}

/* The length comes first, into the buffer that held the question; then a buffer of that length
 * takes the rest. */
static bool attempt_tcp_expect(struct attempt *attempt)
{
    size_t length = dns_read_u16(attempt->buffer);
    uint8_t *buffer = length ? malloc(length) : NULL;

    if (!buffer)
        return false;
    free(attempt->buffer);
    attempt->buffer = buffer;
    attempt->length = length;
    attempt->position = 2; /* counts the two bytes of the length */
    return true;
}

static void attempt_tcp_complete(struct attempt *attempt)
{
    _cleanup_free_ uint8_t *data = TAKE_PTR(attempt->buffer);

    if (attempt_received(attempt, data, attempt->length))
        attempt_broken(attempt);
}

static void attempt_tcp_read(struct attempt *attempt)
{
    bool in_length = attempt->position < 2;
    size_t wanted = in_length ? 2 - attempt->position : attempt->length + 2 - attempt->position;
    uint8_t *to = attempt->buffer + (in_length ? attempt->position : attempt->position - 2);
    ssize_t got = recv(attempt->fd, to, wanted, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        attempt_broken(attempt);
        return;
    }
    attempt->position += (size_t)got;
    if (in_length && attempt->position == 2 && !attempt_tcp_expect(attempt))
        attempt_broken(attempt);
    else if (!in_length && attempt->position == attempt->length + 2)
        attempt_tcp_complete(attempt);
}

static void attempt_ready(void *userdata, unsigned events)
{
    struct attempt *attempt = userdata;

    if (!attempt->tcp) {
        attempt_ready_udp(attempt);
    } else if (events & LOOP_WRITE) {
        if (attempt_tcp_write(attempt)) {
            attempt->position = 0;
            loop_io_set_events(attempt->io, LOOP_READ);
        }
    } else {
        attempt_tcp_read(attempt);
    }
}

/* --- questions --- */

static bool question_has_key(const void *item, const void *wanted)
{
    const struct dns_question *question = item;
    const struct dns_cache_key *key = wanted;

    return question->upstreams->id == key->upstreams && question->type == key->type &&
           question->flags == key->flags && question->name.length == key->name->length &&
           memcmp(question->name.wire, key->name->wire, key->name->length) == 0;
}

static uint32_t question_hash(const struct dns_cache_key *key)
{
    return dns_hash(key->name->wire, key->name->length,
                    (uint64_t)key->upstreams << 32 | (uint32_t)key->type << 16 | key->flags);
}

/* Draws the case of each letter (draft-vixie-dnsext-dns0x20). */
static void question_draw_case(struct dns_question *question)
{
    const struct dns_name *name = &question->name;
    uint8_t bits[(DNS_NAME_MAX + 7) / 8];

    random_bytes(question->forward, bits, (name->length + 7u) / 8);
    for (unsigned i = 0; i < name->length; i++) {
        uint8_t c = name->wire[i];
        bool flip = c >= 'a' && c <= 'z' && bits[i / 8] >> i % 8 & 1;

        question->cased[i] = flip ? c & (uint8_t)~0x20 : c;
    }
}

static struct dns_question *question_new(struct dns_forward *forward,
                                         struct dns_upstreams *upstreams,
                                         const struct dns_cache_key *key, uint32_t hash)
{
    struct dns_question *question = calloc(1, sizeof(*question));

    if (!question)
        return NULL;
    question->forward = forward;
    question->timer = loop_timer_new(forward->config.loop, question_expired, question);
    if (!question->timer || dns_table_add(&forward->questions, hash, question) < 0) {
        loop_timer_free(question->timer);
        free(question);
        return NULL;
    }
    question->hash = hash;
    question->upstreams = dns_upstreams_reference(upstreams);
    question->type = key->type;
    question->flags = key->flags;
    question->name = *key->name;
    question->started_ms = loop_now_ms(forward->config.loop);
    dns_upstreams_order(upstreams, question->order);
    question_draw_case(question);
    list_append(&forward->running, question);
    forward->stats.questions++;
    return question;
}

static void question_begin(struct dns_question *question)
{
    uint64_t now_ms = question->started_ms;

    if (!question_ask_next(question)) {
        question_fail(question);
        return;
    }
    for (uint32_t i = 1; i < question->upstreams->count; i++)
        if (dns_server_probe_due(question->order[i], now_ms))
            attempt_start(question, question->order[i], true);
}

/* --- bounds --- */

static void waiter_shed(struct dns_forward *forward, struct dns_waiter *waiter)
{
    struct dns_question *question = waiter->question;

    forward->stats.shed++;
    waiter_unlink(waiter);
    if (!question->waiters)
        question_free(question);
    waiter->ops->answer(waiter, NULL);
}

static void question_shed(struct dns_question *question)
{
    while (question->attempts)
        attempt_free(question->attempts);
    for (struct dns_waiter *waiter = question->waiters; waiter; waiter = waiter->next)
        question->forward->stats.shed++;
    question_finish(question, NULL);
}

/* Before a new question: one socket must be free. First go those that nobody waits for, then those
 * of an asker that has many itself, then the oldest. */
static void forward_make_room(struct dns_forward *forward, const struct dns_quota *quota)
{
    while (forward->n_sockets >= forward->config.max_sockets) {
        if (forward->over.oldest)
            question_free(forward->over.oldest);
        else if (quota->n_waiters > FAIR_WAITERS)
            waiter_shed(forward, quota->oldest);
        else if (forward->running.oldest)
            question_shed(forward->running.oldest);
        else
            return;
    }
}

/* --- interface --- */

struct dns_forward *dns_forward_new(const struct dns_forward_config *config)
{
    struct dns_forward *forward = calloc(1, sizeof(*forward));

    if (forward)
        forward->config = *config;
    return forward;
}

void dns_forward_set_max_waiters(struct dns_forward *forward, uint32_t max_waiters)
{
    forward->config.max_waiters = max_waiters;
}

void dns_forward_set_stale(struct dns_forward *forward, bool stale)
{
    forward->config.stale = stale;
}

void dns_forward_free(struct dns_forward *forward)
{
    if (!forward)
        return;
    while (forward->running.oldest) {
        struct dns_question *question = forward->running.oldest;

        while (question->waiters) {
            struct dns_waiter *waiter = question->waiters;

            waiter_unlink(waiter);
            waiter->ops->drop(waiter);
        }
        question_free(question);
    }
    while (forward->over.oldest)
        question_free(forward->over.oldest);
    dns_table_deinit(&forward->questions);
    free(forward);
}

void dns_forward_key(struct dns_cache_key *key, const struct dns_upstreams *upstreams,
                     const struct dns_query *query)
{
    *key = (struct dns_cache_key){
        .upstreams = upstreams->id,
        .type = query->type,
        .flags = (uint16_t)((query->terms.flags & DNS_FLAG_CD) |
                            (query->terms.dnssec_ok ? DNS_CACHE_DO : 0)),
        .name = &query->name,
    };
}

int dns_forward_ask(struct dns_forward *forward, struct dns_upstreams *upstreams,
                    const struct dns_query *query, struct dns_waiter *waiter)
{
    struct dns_question *question;
    struct dns_cache_key key;
    uint32_t hash;

    if (upstreams->count == 0)
        return -ENETUNREACH;
    if (waiter->quota->n_waiters >= forward->config.max_waiters)
        waiter_shed(forward, waiter->quota->oldest);
    dns_forward_key(&key, upstreams, query);
    hash = question_hash(&key);
    question = dns_table_find(&forward->questions, hash, question_has_key, &key);
    if (question) {
        waiter_link(question, waiter);
        return 0;
    }
    forward_make_room(forward, waiter->quota);
    question = question_new(forward, upstreams, &key, hash);
    if (!question)
        return -ENOMEM;
    waiter_link(question, waiter);
    question_begin(question);
    return 0;
}

void dns_forward_cancel(struct dns_forward *forward, struct dns_waiter *waiter)
{
    (void)forward;
    waiter_unlink(waiter);
}

void dns_forward_cancel_all(struct dns_forward *forward, struct dns_quota *quota)
{
    while (quota->oldest) {
        struct dns_waiter *waiter = quota->oldest;

        dns_forward_cancel(forward, waiter);
        waiter->ops->drop(waiter);
    }
}

bool dns_forward_is_busy(const struct dns_forward *forward)
{
    for (const struct dns_question *question = forward->running.oldest; question;
         question = question->newer)
        if (question->waiters)
            return true;
    return false;
}

const struct dns_forward_stats *dns_forward_stats(const struct dns_forward *forward)
{
    return &forward->stats;
}
