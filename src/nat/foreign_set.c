/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sets of other tables: is a key in it? Elements are looked at as they come; none is kept. */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

#include "nat/foreign_walk.h"
#include "nat/table.h"

#define KEY_MAX 64

struct search {
    const char *table;
    const char *set;
    uint8_t key[KEY_MAX];
    size_t known; /* bytes of it */
    uint32_t key_length;
    bool intervals; /* elements are where ranges begin and end, in no order */
    bool has_best;
    uint8_t best[KEY_MAX]; /* the last beginning or end that is not behind the key */
    bool best_ends;
    enum foreign_match match;
    struct foreign_step step;
};

static void search_build(struct nlmsghdr *message, void *userdata)
{
    const struct search *search = userdata;

    mnl_attr_put_strz(message, NFTA_SET_TABLE, search->table);
    mnl_attr_put_strz(message, NFTA_SET_NAME, search->set);
}

static void elements_build(struct nlmsghdr *message, void *userdata)
{
    const struct search *search = userdata;

    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, search->table);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, search->set);
}

static int set_parse(const struct nlmsghdr *message, void *userdata)
{
    struct search *search = userdata;
    struct nlattr *attribute;
    uint32_t flags = 0;

    mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_validate(attribute, MNL_TYPE_U32) < 0)
            continue;
        if (mnl_attr_get_type(attribute) == NFTA_SET_FLAGS)
            flags = ntohl(mnl_attr_get_u32(attribute));
        if (mnl_attr_get_type(attribute) == NFTA_SET_KEY_LEN)
            search->key_length = ntohl(mnl_attr_get_u32(attribute));
    }
    search->intervals = flags & NFT_SET_INTERVAL && !(flags & NFT_SET_CONCAT);
    return 0;
}

/* --- elements --- */

struct element {
    const void *key;
    const void *key_end;
    uint32_t flags;
    const struct nlattr *data;
};

static const void *value_of(const struct nlattr *nest, uint32_t length)
{
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute,
                             nest) if (mnl_attr_get_type(attribute) == NFTA_DATA_VALUE &&
                                       mnl_attr_get_payload_len(attribute) ==
                                           length) return mnl_attr_get_payload(attribute);
    return NULL;
}

static void element_read(const struct nlattr *nest, uint32_t key_length, struct element *element)
{
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, nest)
    {
        switch (mnl_attr_get_type(attribute)) {
        case NFTA_SET_ELEM_KEY:
            element->key = value_of(attribute, key_length);
            break;
        case NFTA_SET_ELEM_KEY_END:
            element->key_end = value_of(attribute, key_length);
            break;
        case NFTA_SET_ELEM_FLAGS:
            if (mnl_attr_validate(attribute, MNL_TYPE_U32) >= 0)
                element->flags = ntohl(mnl_attr_get_u32(attribute));
            break;
        case NFTA_SET_ELEM_DATA:
            element->data = attribute;
            break;
        }
    }
}

static void verdict_read(const struct nlattr *data, struct foreign_step *step)
{
    struct nlattr *nest;
    struct nlattr *attribute;
    int code = NFT_CONTINUE;

    mnl_attr_for_each_nested(nest, data)
    {
        if (mnl_attr_get_type(nest) != NFTA_DATA_VERDICT)
            return;
        mnl_attr_for_each_nested(attribute, nest)
        {
            if (mnl_attr_get_type(attribute) == NFTA_VERDICT_CODE &&
                mnl_attr_validate(attribute, MNL_TYPE_U32) >= 0)
                code = (int)ntohl(mnl_attr_get_u32(attribute));
            if (mnl_attr_get_type(attribute) == NFTA_VERDICT_CHAIN &&
                mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0)
                snprintf(step->chain, sizeof(step->chain), "%s", mnl_attr_get_str(attribute));
        }
    }
    step->action = code == NF_ACCEPT      ? ACTION_ACCEPT
                   : code == NF_DROP      ? ACTION_DROP
                   : code == NFT_RETURN   ? ACTION_RETURN
                   : code == NFT_JUMP     ? ACTION_JUMP
                   : code == NFT_GOTO     ? ACTION_GOTO
                   : code == NFT_CONTINUE ? ACTION_NONE
                                          : ACTION_UNKNOWN;
}

static void found(struct search *search, const struct element *element, enum foreign_match match)
{
    search->match = match;
    search->step = (struct foreign_step){0};
    if (element->data)
        verdict_read(element->data, &search->step);
}

/* The last boundary before the key says whether it lies in a range. */
static void boundary_try(struct search *search, const struct element *element)
{
    bool ends = element->flags & NFT_SET_ELEM_INTERVAL_END;
    int order = search->has_best ? memcmp(element->key, search->best, search->key_length) : 1;

    if (memcmp(element->key, search->key, search->key_length) > 0 || order < 0)
        return;
    if (order == 0 && ends) /* one range begins where another ends */
        return;
    search->has_best = true;
    memcpy(search->best, element->key, search->key_length);
    search->best_ends = ends;
    found(search, element, ends ? MATCH_NO : MATCH_YES);
}

static void element_try(struct search *search, const struct element *element)
{
    if (element->flags & 2) { /* NFT_SET_ELEM_CATCHALL, which older headers lack */
        if (search->match == MATCH_NO)
            found(search, element, MATCH_MAYBE);
        return;
    }
    if (!element->key)
        return;
    if (search->intervals) {
        boundary_try(search, element);
        return;
    }
    if (element->key_end && memcmp(element->key, element->key_end, search->key_length) != 0) {
        if (search->match == MATCH_NO) /* fields of ranges are not taken apart here */
            found(search, element, MATCH_MAYBE);
        return;
    }
    if (memcmp(element->key, search->key, search->key_length) == 0)
        found(search, element, MATCH_YES);
}

static int elements_parse(const struct nlmsghdr *message, void *userdata)
{
    struct search *search = userdata;
    struct nlattr *list;
    struct nlattr *nest;

    mnl_attr_for_each(list, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(list) != NFTA_SET_ELEM_LIST_ELEMENTS)
            continue;
        mnl_attr_for_each_nested(nest, list)
        {
            struct element element = {0};

            element_read(nest, search->key_length, &element);
            element_try(search, &element);
        }
    }
    return 0;
}

enum foreign_match foreign_set_find(struct nat *nat, uint32_t family, const char *table,
                                    const char *set, const void *key, size_t length,
                                    struct foreign_step *ret_step)
{
    struct error ignored = ERROR_INIT; /* what can't be read is not known */
    struct search search = {.table = table, .set = set, .match = MATCH_NO};
    int result;

    search.known = length < KEY_MAX ? length : KEY_MAX;
    memcpy(search.key, key, search.known);
    result = nft_socket_get(nat->socket, (uint8_t)family, NFT_MSG_GETSET, false, search_build,
                            set_parse, &search, &ignored);
    if (result < 0 || search.key_length == 0 || search.key_length > search.known)
        return MATCH_MAYBE;
    result = nft_socket_get(nat->socket, (uint8_t)family, NFT_MSG_GETSETELEM, true, elements_build,
                            elements_parse, &search, &ignored);
    if (result < 0)
        return MATCH_MAYBE;
    if (search.match != MATCH_NO) {
        ret_step->action = search.step.action;
        memcpy(ret_step->chain, search.step.chain, sizeof(ret_step->chain));
    }
    return search.match;
}
