/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A query of a guest, by UDP or TCP: whatever it is, the reply is well-formed, answers the same
 * question, and is no longer than the client takes. The first byte says who asks, and how. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/record.h"
#include "worker/dns_service.h"

static struct dns_service service;
static struct zone_network *network;

static struct ip ip_of(const char *text)
{
    struct ip ip = {0};

    if (ip_parse(text, &ip) < 0)
        abort();
    return ip;
}

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void add_endpoint(int64_t id, const char *ip, const char *name, const char *alias)
{
    struct zone_endpoint_config config = {.id = id,
                                          .guest_id = id,
                                          .network_id = 1,
                                          .ip = ip_of(ip),
                                          .ip6 = ip_of("fd00::5"),
                                          .names = {name, alias},
                                          .n_names = 2};

    must(zone_endpoint_set(service.zone, &config) == 0);
}

/* value: as base/record.h keeps it. */
static void add_record(int64_t id, const char *name, uint16_t type, const char *value)
{
    uint8_t rdata[RECORD_RDATA_MAX];
    struct zone_record_config config = {.id = id,
                                        .name = name,
                                        .type = type,
                                        .length =
                                            record_rdata_build(type, value, "moat.internal", rdata),
                                        .rdata = rdata};

    must(zone_record_set(service.zone, &config) == 0);
}

/* What "far" stands for, as an upstream server has answered it: A and, with a name in it, MX. */
static void cache_add(void)
{
    static const uint8_t message[] = "\0\1\201\200\0\1\0\2\0\0\0\0\3www\7example\3org\0\0\1\0\1"
                                     "\300\14\0\1\0\1\0\0\1\0\0\4\300\0\2\7"
                                     "\300\20\0\17\0\1\0\0\1\0\0\7\0\12\2mx\300\20";
    struct dns_answer answer;
    struct dns_cache_key key = {.type = DNS_TYPE_A, .name = &answer.name};

    must(dns_answer_parse(message, sizeof(message) - 1, &answer));
    key.upstreams = service.upstreams->id;
    dns_cache_put(service.cache, &key, &answer, message, 0);
    must(dns_cache_count(service.cache) == 1);
}

static void service_init(void)
{
    struct zone_network config = {.id = 1, .gateway = ip_of("10.88.0.1")};

    must(zone_new("moat.internal", 60, NULL, NULL, &service.zone) == 0);
    must(cidr_parse("10.88.0.0/16", &config.subnet) == 0);
    must(dns_name_parse("default", &config.label) == 0);
    must(zone_network_set(service.zone, &config, &network) == 0);
    add_endpoint(1, "10.88.0.5", "web", "a.b.c");
    for (int i = 0; i < 100; i++) {
        char ip[32];
        char name[32];

        snprintf(ip, sizeof(ip), "10.88.1.%d", i);
        snprintf(name, sizeof(name), "guest-%d", i);
        add_endpoint(100 + i, ip, name, "pool");
    }
    add_record(1, "db.corp.example", RECORD_A, "10.1.1.1");
    add_record(2, "*.apps", RECORD_TXT, "all of them");
    add_record(3, "here", RECORD_CNAME, "web");
    add_record(4, "far", RECORD_CNAME, "www.example.org.");
    add_record(5, "*.loop", RECORD_CNAME, "x.loop");
    add_record(6, "_sip._tcp.web", RECORD_SRV, "10 5 5060 web");
    service.cache = dns_cache_new(1 << 16);
    service.upstreams = dns_upstreams_get(dns_upstream_pool_new(), NULL, 0);
    service.permits = dns_permits_new();
    cache_add();
}

static void reply_check(const uint8_t *query, size_t query_length, const uint8_t *reply,
                        size_t length, bool tcp)
{
    struct dns_answer answer;
    struct dns_query asked;

    must(length >= DNS_HEADER_SIZE && memcmp(query, reply, 2) == 0 && reply[2] & 0x80);
    if (dns_query_parse(query, query_length, &asked) != DNS_PARSE_OK) {
        must(length == DNS_HEADER_SIZE);
        return;
    }
    must(tcp || length <= asked.terms.udp_size);
    must(memcmp(query + DNS_HEADER_SIZE, reply + DNS_HEADER_SIZE,
                asked.terms.question_end - DNS_HEADER_SIZE) == 0);
    must(dns_answer_parse(reply, length, &answer));
    must(asked.terms.edns == (reply[11] > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t buffer[DNS_MESSAGE_MAX];
    struct dns_request request = {.data = buffer};
    uint8_t *query;

    if (!service.zone)
        service_init();
    if (size < 1 || size > 4096)
        return 0;
    request.tcp = data[0] & 1;
    request.source = ip_of(data[0] & 2 ? "10.88.0.5" : "10.88.0.1");
    request.network = network;
    request.length = size - 1;
    request.capacity = request.tcp ? sizeof(buffer) : DNS_UDP_MAX;
    if (!request.tcp && request.length > DNS_UDP_MAX)
        return 0;
    query = malloc(size); /* of its very size, so that ASan sees each byte too many */
    must(query != NULL);
    memcpy(query, data + 1, size - 1);
    struct dns_query parsed;
    dns_query_parse(query, size - 1, &parsed);
    memcpy(buffer, query, size - 1);
    dns_service_read(&service, &request);
    size_t length = dns_service_answer(&service, &request);
    if (length > 0)
        reply_check(query, size - 1, buffer, length, request.tcp);
    free(query);
    return 0;
}
