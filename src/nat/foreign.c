/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Other firewalls beside ours: a packet must be accepted by every base chain of its hook, so a
 * chain of somebody else's with policy drop stops what ours accepts. */
#include "nat/table.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

struct foreign {
    bool found;
    char chain[NFT_NAME_MAXLEN * 2 + 8];
};

static const char *family_name(uint32_t family)
{
    return family == NFPROTO_INET ? "inet" : family == NFPROTO_IPV4 ? "ip" : NULL;
}

static void foreign_check(struct foreign *foreign, const struct nftnl_chain *chain)
{
    const char *family = family_name(nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY));
    const char *table = nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE);
    const char *name = nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME);

    if (foreign->found || !family || !table || !name ||
        !nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM) ||
        nftnl_chain_get_u32(chain, NFTNL_CHAIN_HOOKNUM) != NF_INET_FORWARD ||
        nftnl_chain_get_u32(chain, NFTNL_CHAIN_POLICY) != NF_DROP)
        return;
    snprintf(foreign->chain, sizeof(foreign->chain), "%s %s %s", family, table, name);
    foreign->found = true;
}

static int foreign_parse(const struct nlmsghdr *message, void *userdata)
{
    struct nftnl_chain *chain = nftnl_chain_alloc();

    if (!chain)
        return -ENOMEM;
    bool parsed = nftnl_chain_nlmsg_parse(message, chain) >= 0;
    if (parsed)
        foreign_check(userdata, chain);
    nftnl_chain_free(chain);
    return parsed ? 0 : -EPROTO;
}

static void every_family(struct nlmsghdr *message, void *userdata)
{
    struct nfgenmsg *extra = mnl_nlmsg_get_payload(message);

    (void)userdata;
    extra->nfgen_family = NFPROTO_UNSPEC;
}

int nat_foreign_drop_find(struct nat *nat, char *ret_chain, size_t size, bool *ret_found,
                          struct error *error)
{
    struct foreign foreign;
    int result;

    do {
        foreign = (struct foreign){0};
        result = nft_socket_get(nat->socket, NFPROTO_INET, NFT_MSG_GETCHAIN, true, every_family,
                                foreign_parse, &foreign, error);
    } while (result == -EINTR);
    if (result < 0 && result != -ENOENT)
        return result;
    if (foreign.found)
        snprintf(ret_chain, size, "%s", foreign.chain);
    *ret_found = foreign.found;
    return 0;
}
