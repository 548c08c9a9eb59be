/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A DHCPv6 message of a guest: whatever it is, the answer is well-formed and gives no other address
 * than the guest's. The server's own identifier stands for bytes that a fuzzer can't guess: the
 * first byte of the input says whether it is put in. */
#include <stdlib.h>
#include <string.h>

#include "worker/dhcp6.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t server_id[] = {0, 3, 0, 1, 2, 0x6d, 10, 88, 0, 1};

static void must(bool condition)
{
    if (!condition)
        abort();
}

static struct dhcp_port port_make(void)
{
    struct dhcp_port port = {.server_mac = {{2, 0x6d, 10, 88, 0, 1}},
                             .prefix6 = 64,
                             .mtu = 1500,
                             .lease_s = 3600,
                             .n_search = 1,
                             .search = {"moat.internal"}};

    port.ip6 = (struct ip){AF_INET6, {0xfd, [15] = 5}};
    port.dns6.items[port.dns6.count++] = (struct ip){AF_INET6, {0xfd, [15] = 1}};
    return port;
}

static size_t u16(const uint8_t *bytes)
{
    return (size_t)bytes[0] << 8 | bytes[1];
}

/* Addresses with a lifetime are the guest's. */
static void options_check(const struct dhcp_port *port, const uint8_t *data, size_t size)
{
    while (size) {
        size_t code = u16(data);
        size_t length;

        must(size >= 4);
        length = u16(data + 2);
        must(length <= size - 4);
        if (code == DHCP6_OPTION_ADDRESS)
            must(length == 24 && (u16(data + 20) + u16(data + 22) == 0 ||
                                  memcmp(data + 4, port->ip6.bytes, 16) == 0));
        if (code == DHCP6_OPTION_IA_NA || code == DHCP6_OPTION_IA_PD)
            options_check(port, data + 4 + 12, length - 12);
        if (code == DHCP6_OPTION_IA_TA)
            options_check(port, data + 4 + 4, length - 4);
        data += 4 + length;
        size -= 4 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dhcp6_reply reply;
    struct dhcp_port port = port_make();
    struct dhcp6_request request;
    uint8_t *copy;

    if (size < 1 || size > 2048)
        return 0;
    copy = malloc(size);
    must(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    if (dhcp6_request_parse(copy, size - 1, &request)) {
        if (data[0] & 1) {
            memcpy(request.server_id, server_id, sizeof(server_id));
            request.server_id_length = sizeof(server_id);
        }
        if (dhcp6_answer(&port, &request, &reply)) {
            must(reply.length >= 4 && reply.length <= DHCP6_MESSAGE_MAX);
            options_check(&port, reply.data + 4, reply.length - 4);
        }
    }
    free(copy);
    return 0;
}
