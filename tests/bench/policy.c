/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sets policies over moatd's socket, beside one nf_tables transaction with the elements of such a
 * policy, made by hand.
 *
 *   bench_policy SOCKET
 *
 * set GUEST SHAPE RULES   ->  a new policy of that many rules; answers with its time in ns
 * none GUEST              ->  no policy
 * commit RULES            ->  what SHAPE nets of that many rules is in the kernel, added to the set
 *     `ranges` of the table `inet byhand`, of ipv4_addr . inet_service . inet_proto, in one
 *     transaction; answers with its time
 *
 * Shapes: nets, each rule another network and one of three ports; ports, each rule another port of
 * every address. The last rule of each opens the server at 192.0.2.2. */
#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "nat/nft.h"
#include "rpc.h"

#define SERVER "192.0.2.2"
#define RULES_MAX 1000u
#define RULE_MAX 48
#define KEY 12
#define ELEMENTS 600u /* one attribute has 16 bits of length */
#define ELEMENT_ROOM 64u

/* --- policies over the socket --- */

static void rule_write(char *text, const char *shape, unsigned i)
{
    if (strcmp(shape, "nets") == 0)
        snprintf(text, RULE_MAX, "10.%u.%u.0/24:%u", i % 250, i / 250, 443 + i % 3);
    else
        snprintf(text, RULE_MAX, "any:%u", 20000 + 2 * i);
}

static char *request_write(const char *guest, const char *shape, unsigned rules, size_t *ret_length)
{
    size_t size = 256 + (size_t)rules * (RULE_MAX + 4);
    char *text = malloc(size);
    size_t length;

    if (!text)
        die("memory");
    length = (size_t)snprintf(text, size,
                              "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"policy.set\",\"params\":"
                              "{\"guest\":\"%s\",\"allow\":[",
                              guest);
    for (unsigned i = 0; i + 1 < rules; i++) {
        char rule[RULE_MAX];

        rule_write(rule, shape, i);
        length += (size_t)snprintf(text + length, size - length, "\"%s\",", rule);
    }
    length +=
        (size_t)snprintf(text + length, size - length, "%s]}}\n", rules ? "\"" SERVER "\"" : "");
    *ret_length = length;
    return text;
}

static uint64_t policy_set(int fd, const char *guest, const char *shape, unsigned rules)
{
    size_t length;
    char *text = request_write(guest, shape, rules, &length);
    uint64_t taken = call(fd, text, length, -1);

    free(text);
    return taken;
}

/* --- the same by hand --- */

static void put_bound(struct nlmsghdr *message, uint16_t type, uint32_t address, uint16_t port,
                      uint8_t protocol)
{
    uint8_t key[KEY] = {0};
    struct nlattr *nest = mnl_attr_nest_start(message, type);

    address = htonl(address);
    port = htons(port);
    memcpy(key, &address, sizeof(address));
    memcpy(key + 4, &port, sizeof(port));
    key[8] = protocol;
    mnl_attr_put(message, NFTA_DATA_VALUE, sizeof(key), key);
    mnl_attr_nest_end(message, nest);
}

/* The elements 2i and 2i + 1 are rule i, for TCP and UDP; the last one is the server. */
static void put_element(struct nlmsghdr *message, unsigned i, unsigned count)
{
    struct nlattr *nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
    uint8_t protocol = i % 2 ? IPPROTO_UDP : IPPROTO_TCP;
    unsigned rule = i / 2;
    uint32_t network = 10u << 24 | rule % 250 << 16 | rule / 250 << 8;
    uint16_t port = (uint16_t)(443 + rule % 3);
    struct in_addr server;

    if (i + 1 < count) {
        put_bound(message, NFTA_SET_ELEM_KEY, network, port, protocol);
        put_bound(message, NFTA_SET_ELEM_KEY_END, network | 0xff, port, protocol);
    } else {
        inet_pton(AF_INET, SERVER, &server);
        put_bound(message, NFTA_SET_ELEM_KEY, ntohl(server.s_addr), 0, 0);
        put_bound(message, NFTA_SET_ELEM_KEY_END, ntohl(server.s_addr), UINT16_MAX, UINT8_MAX);
    }
    mnl_attr_nest_end(message, nest);
}

static void put_elements(struct nft_transaction *transaction, unsigned first, unsigned end,
                         unsigned count)
{
    struct nlmsghdr *message =
        nft_transaction_open(transaction, NFT_MSG_NEWSETELEM, NLM_F_CREATE,
                             256 + (size_t)(end - first) * ELEMENT_ROOM, "elements");

    if (!message)
        die("memory");
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, "byhand");
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, "ranges");
    struct nlattr *list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    for (unsigned i = first; i < end; i++)
        put_element(message, i, count);
    mnl_attr_nest_end(message, list);
    nft_transaction_close(transaction, message);
}

static uint64_t commit_by_hand(struct nft_socket *nft, unsigned rules)
{
    unsigned count = 2 * (rules - 1) + 1;
    struct nft_transaction transaction;
    struct error error = ERROR_INIT;

    nft_transaction_init(&transaction, NFPROTO_INET);
    for (unsigned i = 0; i < count; i += ELEMENTS)
        put_elements(&transaction, i, i + ELEMENTS < count ? i + ELEMENTS : count, count);
    uint64_t start = now_ns();
    if (nft_socket_commit(nft, &transaction, &error) < 0)
        die("%s", error.text);
    uint64_t taken = now_ns() - start;
    nft_transaction_deinit(&transaction);
    return taken;
}

int main(int argc, char **argv)
{
    struct error error = ERROR_INIT;
    struct nft_socket *nft;
    char line[128], guest[64], shape[16];
    unsigned rules;

    if (argc != 2)
        die("usage: bench_policy SOCKET");
    int fd = connection_open(argv[1]);
    if (nft_socket_open(&nft, &error) < 0)
        die("%s", error.text);
    while (fgets(line, sizeof(line), stdin)) {
        uint64_t taken;

        if (sscanf(line, "set %63s %15s %u", guest, shape, &rules) == 3 && rules > 0 &&
            rules <= RULES_MAX)
            taken = policy_set(fd, guest, shape, rules);
        else if (sscanf(line, "none %63s", guest) == 1)
            taken = policy_set(fd, guest, "", 0);
        else if (sscanf(line, "commit %u", &rules) == 1 && rules > 0)
            taken = commit_by_hand(nft, rules);
        else
            die("what is %s", line);
        printf("%lu\n", (unsigned long)taken);
        fflush(stdout);
    }
    nft_socket_close(nft);
    close(fd);
    return 0;
}
