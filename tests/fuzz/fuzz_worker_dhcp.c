/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A frame from a guest, as it comes off its tap, or a DHCPv4 message in one: whatever it is, an
 * answer is well-formed, of a size that the client takes, and of no other address than the
 * guest's. */
#include <stdlib.h>
#include <string.h>

#include "worker/dhcp4.h"
#include "worker/dhcp_frame.h"
#include "worker/dhcp_nd.h"
#include "worker/dhcp_ra.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static struct dhcp_port port_make(void)
{
    struct dhcp_port port = {.ip = ip_from_v4(0x0a580005),
                             .gateway = ip_from_v4(0x0a580001),
                             .prefix = 16,
                             .default_route = true,
                             .mtu = 1500,
                             .lease_s = 3600,
                             .host_name = "vm",
                             .n_search = 2,
                             .search = {"moat.internal", "corp.example"}};

    port.dns.items[port.dns.count++] = port.gateway;
    return port;
}

static void reply_check(const struct dhcp_port *port, const struct dhcp4_reply *reply)
{
    bool has_type = false;
    size_t at = 240;

    must(reply->length >= 300 && reply->length <= DHCP4_MESSAGE_MAX && reply->data[0] == 2);
    must(memcmp(reply->data + 16, port->ip.bytes, 4) == 0 ||
         memcmp(reply->data + 16, (uint8_t[4]){0}, 4) == 0);
    while (reply->data[at] != 255) {
        must(at + 1 < reply->length && at + 2u + reply->data[at + 1] < reply->length);
        has_type = has_type || reply->data[at] == 53;
        at += 2u + reply->data[at + 1];
    }
    must(has_type);
}

static void message_try(const uint8_t *data, size_t size)
{
    struct dhcp_port port = port_make();
    struct dhcp4_request request;
    static struct dhcp4_reply reply;

    if (!dhcp4_request_parse(data, size, &request))
        return;
    port.mac = request.chaddr;
    if (dhcp4_answer(&port, &request, &reply))
        reply_check(&port, &reply);
}

static void solicitation_try(const struct frame *frame)
{
    const struct dhcp_port port = {.ip6 = {AF_INET6, {0xfd, [15] = 2}}, .prefix6 = 64};
    struct ip target = {0};

    (void)ra_solicitation_is_valid(frame);
    if (nd_solicitation_is_answered(&port, frame, &target))
        must(target.family == AF_INET6 && !ip_equal(&target, &port.ip6));
}

static void frame_try(const uint8_t *data, size_t size, bool checksum_pending)
{
    uint8_t buffer[FRAME_MAX];
    struct frame frame;
    size_t length;

    if (!frame_parse(data, size, checksum_pending, &frame))
        return;
    must(frame.payload >= data && frame.payload + frame.length <= data + size);
    length = frame_build(&frame, buffer, sizeof(buffer));
    must(length > 0 && frame_parse(buffer, length, false, &frame));
    if (frame.protocol == IPPROTO_ICMPV6)
        solicitation_try(&frame);
    else
        message_try(frame.payload, frame.length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;

    if (size < 1 || size > FRAME_MAX)
        return 0;
    copy = malloc(size); /* of its very size, so that ASan sees each byte too many */
    must(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    if (data[0] & 1)
        frame_try(copy, size - 1, data[0] & 2);
    else
        message_try(copy, size - 1);
    free(copy);
    return 0;
}
