/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nat/entry.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

static void ip_read(const struct nlattr *attribute, struct ip *ip)
{
    switch (mnl_attr_get_type(attribute)) {
    case CTA_IP_V4_SRC:
    case CTA_IP_V4_DST:
        if (mnl_attr_get_payload_len(attribute) == 4)
            *ip = ip_from_bytes(AF_INET, mnl_attr_get_payload(attribute));
        break;
    default:
        if (mnl_attr_get_payload_len(attribute) == 16)
            *ip = ip_from_bytes(AF_INET6, mnl_attr_get_payload(attribute));
    }
}

static void tuple_read_ip(const struct nlattr *nest, struct tuple *tuple)
{
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, nest)
    {
        switch (mnl_attr_get_type(attribute)) {
        case CTA_IP_V4_SRC:
        case CTA_IP_V6_SRC:
            ip_read(attribute, &tuple->source);
            break;
        case CTA_IP_V4_DST:
        case CTA_IP_V6_DST:
            ip_read(attribute, &tuple->destination);
            break;
        }
    }
}

static void tuple_read_protocol(const struct nlattr *nest, struct tuple *tuple)
{
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, nest)
    {
        if (mnl_attr_get_type(attribute) == CTA_PROTO_NUM &&
            mnl_attr_get_payload_len(attribute) == 1)
            tuple->protocol = mnl_attr_get_u8(attribute);
        if (mnl_attr_get_type(attribute) == CTA_PROTO_SRC_PORT &&
            mnl_attr_get_payload_len(attribute) == 2)
            tuple->source_port = ntohs(mnl_attr_get_u16(attribute));
        if (mnl_attr_get_type(attribute) == CTA_PROTO_DST_PORT &&
            mnl_attr_get_payload_len(attribute) == 2)
            tuple->destination_port = ntohs(mnl_attr_get_u16(attribute));
    }
}

static void tuple_read(const struct nlattr *nest, struct tuple *tuple)
{
    struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, nest)
    {
        if (mnl_attr_get_type(attribute) == CTA_TUPLE_IP)
            tuple_read_ip(attribute, tuple);
        if (mnl_attr_get_type(attribute) == CTA_TUPLE_PROTO)
            tuple_read_protocol(attribute, tuple);
    }
}

void entry_read(const struct nlmsghdr *message, struct entry *entry)
{
    struct nlattr *attribute;

    *entry = (struct entry){0};
    mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        switch (mnl_attr_get_type(attribute)) {
        case CTA_TUPLE_ORIG:
            tuple_read(attribute, &entry->original);
            entry->original_raw = attribute;
            break;
        case CTA_TUPLE_REPLY:
            tuple_read(attribute, &entry->reply);
            break;
        case CTA_STATUS:
            if (mnl_attr_get_payload_len(attribute) == 4)
                entry->status = ntohl(mnl_attr_get_u32(attribute));
            break;
        case CTA_ZONE:
            entry->zone_raw = attribute;
            break;
        case CTA_ID:
            entry->id_raw = attribute;
            break;
        }
    }
}
