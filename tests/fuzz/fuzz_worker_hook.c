/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A call of systemd-resolved, by its hook: whatever it is, a reply is one JSON text with its NUL,
 * and what is malformed has none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/record.h"
#include "worker/hook_call.h"
#include "worker/json.h"

static struct zone *zone;
static uint8_t message[DNS_MESSAGE_MAX];

static void must(bool condition)
{
    if (!condition)
        abort();
}

static struct ip ip_of(const char *text)
{
    struct ip ip = {0};

    must(ip_parse(text, &ip) == 0);
    return ip;
}

static void add_record(int64_t id, const char *name, uint16_t type, const char *value)
{
    uint8_t rdata[RECORD_RDATA_MAX];
    struct zone_record_config config = {.id = id,
                                        .name = name,
                                        .type = type,
                                        .length =
                                            record_rdata_build(type, value, "moat.internal", rdata),
                                        .rdata = rdata};

    must(zone_record_set(zone, &config) == 0);
}

static void zone_fill(void)
{
    struct zone_network config = {.id = 1, .gateway = ip_of("10.88.0.1")};
    struct zone_endpoint_config web = {.id = 1,
                                       .guest_id = 1,
                                       .network_id = 1,
                                       .ip = ip_of("10.88.0.5"),
                                       .ip6 = ip_of("fd00::5"),
                                       .names = {"web"},
                                       .n_names = 1};
    struct zone_network *network;

    must(zone_new("moat.internal", 60, NULL, NULL, &zone) == 0);
    must(cidr_parse("10.88.0.0/16", &config.subnet) == 0);
    must(cidr_parse("fd00::/64", &config.subnet6) == 0);
    must(dns_name_parse("default", &config.label) == 0);
    must(zone_network_set(zone, &config, &network) == 0);
    must(zone_endpoint_set(zone, &web) == 0);
    add_record(1, "www", DNS_TYPE_CNAME, "web");
    add_record(2, "far", DNS_TYPE_CNAME, "www.example.org.");
    add_record(3, "*.apps", DNS_TYPE_TXT, "any text");
    add_record(4, "loop", DNS_TYPE_CNAME, "loop");
    add_record(5, "db.corp.example", DNS_TYPE_A, "192.0.2.7");
}

static void check(enum hook_call handled, const struct hook_text *reply)
{
    struct json json;

    if (handled == HOOK_CALL_BAD || handled == HOOK_CALL_ONEWAY)
        return;
    must(reply->length > 0 && reply->data[reply->length - 1] == '\0');
    json_begin(&json, reply->data, reply->length - 1);
    must(json_skip(&json) && json_is_done(&json));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hook_text reply = {0};
    char *text = malloc(size ? size : 1); /* reading beyond its end is seen */

    must(text != NULL);
    if (!zone)
        zone_fill();
    memcpy(text, data, size);
    if (size <= HOOK_CALL_MAX)
        check(hook_call_handle(zone, text, size, message, &reply), &reply);
    hook_text_deinit(&reply);
    free(text);
    return 0;
}
