/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/dns_rebind.h"

#include "base/rule.h"

#define RECORD_FIXED 10 /* type, class, TTL, rdata length */
#define HINT_IPV4 4     /* keys of SVCB parameters (RFC 9460 section 14.3.2) */
#define HINT_IPV6 6

static bool is_inside(const struct zone *zone, uint8_t family, const uint8_t *bytes)
{
    struct policy_flow flow = {.ip = ip_from_bytes(family, bytes)};

    flow.own = zone_network_find_subnet(zone, &flow.ip) != NULL;
    return !policy_flow_is_public(&flow);
}

static bool hints_inside(const struct zone *zone, uint8_t family, const uint8_t *hints,
                         size_t length)
{
    size_t each = family == AF_INET6 ? 16 : 4;

    for (size_t at = 0; length - at >= each; at += each)
        if (is_inside(zone, family, hints + at))
            return true;
    return false;
}

/* SvcPriority, TargetName, then parameters: key, length, value (RFC 9460 section 2.2). What is
 * malformed is no client's hint either. */
static bool svcb_inside(const struct zone *zone, const uint8_t *rdata, size_t length)
{
    size_t at = length > 2 ? dns_name_skip(rdata, length, 2) : 0;

    while (at > 0 && length - at >= 4) {
        uint16_t key = dns_read_u16(rdata + at);
        size_t size = dns_read_u16(rdata + at + 2);

        at += 4;
        if (length - at < size)
            return false;
        if ((key == HINT_IPV4 && hints_inside(zone, AF_INET, rdata + at, size)) ||
            (key == HINT_IPV6 && hints_inside(zone, AF_INET6, rdata + at, size)))
            return true;
        at += size;
    }
    return false;
}

static bool rdata_inside(const struct zone *zone, uint16_t type, const uint8_t *rdata,
                         size_t length)
{
    switch (type) {
    case DNS_TYPE_A:
        return length == 4 && is_inside(zone, AF_INET, rdata);
    case DNS_TYPE_AAAA:
        return length == 16 && is_inside(zone, AF_INET6, rdata);
    case DNS_TYPE_SVCB:
    case DNS_TYPE_HTTPS:
        return svcb_inside(zone, rdata, length);
    default:
        return false;
    }
}

bool dns_rebind_found(const struct zone *zone, const uint8_t *data, const struct dns_answer *answer)
{
    size_t at = answer->question_end;

    while (at < answer->body_end) { /* its form was checked by dns_answer_parse */
        size_t fixed = dns_name_skip(data, answer->body_end, at);
        size_t length = dns_read_u16(data + fixed + 8);

        if (rdata_inside(zone, dns_read_u16(data + fixed), data + fixed + RECORD_FIXED, length))
            return true;
        at = fixed + RECORD_FIXED + length;
    }
    return false;
}
