/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is read from the kernel's messages, whole and damaged; requests as they are built. */
#include <errno.h>
#include <linux/if_link.h>
#include <linux/veth.h>
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "link/message.h"

struct buffer {
    alignas(8) char bytes[4096];
};

/* ------------------------------------------------------------------------------- errors */
/* An NLMSG_ERROR; with text if there is one, behind a request of request_length bytes unless
 * capped. */
static const struct nlmsghdr *refusal(struct buffer *buffer, int error, const char *text,
                                      size_t request_length, bool capped)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer->bytes);
    struct nlmsgerr *answer = mnl_nlmsg_put_extra_header(message, sizeof(*answer));

    message->nlmsg_type = NLMSG_ERROR;
    answer->error = error;
    answer->msg.nlmsg_len = (uint32_t)request_length;
    if (capped)
        message->nlmsg_flags |= NLM_F_CAPPED;
    else if (request_length > sizeof(answer->msg))
        mnl_nlmsg_put_extra_header(message, request_length - sizeof(answer->msg));
    if (text) {
        message->nlmsg_flags |= NLM_F_ACK_TLVS;
        mnl_attr_put_u32(message, NLMSGERR_ATTR_OFFS, 4);
        mnl_attr_put_strz(message, NLMSGERR_ATTR_MSG, text);
    }
    return message;
}

static void test_error_and_its_text_are_read(void **state)
{
    char extack[NETLINK_EXTACK_MAX], longer[1000];
    struct buffer buffer;

    (void)state;
    assert_int_equal(netlink_parse_error(refusal(&buffer, 0, NULL, 32, true), extack), 0);
    assert_string_equal(extack, "");
    assert_int_equal(netlink_parse_error(refusal(&buffer, -ENODEV, NULL, 32, false), extack),
                     ENODEV);
    assert_string_equal(extack, "");
    assert_int_equal(netlink_parse_error(refusal(&buffer, -EINVAL, "Bad", 99, true), extack),
                     EINVAL);
    assert_string_equal(extack, "Bad");
    assert_int_equal(netlink_parse_error(refusal(&buffer, -EINVAL, "Worse", 52, false), extack),
                     EINVAL);
    assert_string_equal(extack, "Worse");
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    netlink_parse_error(refusal(&buffer, -EPERM, longer, 16, true), extack);
    assert_int_equal(strlen(extack), NETLINK_EXTACK_MAX - 1);
}

static void test_damaged_errors_are_survived(void **state)
{
    char extack[NETLINK_EXTACK_MAX];
    struct buffer buffer;
    struct nlmsghdr *message;

    (void)state;
    refusal(&buffer, -EINVAL, "Bad", 52, false);
    message = (struct nlmsghdr *)(void *)buffer.bytes;
    uint32_t length = message->nlmsg_len;
    for (uint32_t cut = NLMSG_HDRLEN; cut < length; cut++) {
        struct nlmsghdr *exact = malloc(cut); /* so that a sanitizer sees the end */

        assert_non_null(exact);
        memcpy(exact, message, cut);
        exact->nlmsg_len = cut;
        int errnum = netlink_parse_error(exact, extack);
        assert_int_equal(errnum, cut < NLMSG_HDRLEN + sizeof(struct nlmsgerr) ? EBADMSG : EINVAL);
        free(exact);
    }
    refusal(&buffer, -EINVAL, "Bad", 7, false); /* a request shorter than a header */
    assert_int_equal(netlink_parse_error(message, extack), EINVAL);
    assert_string_equal(extack, "");
    refusal(&buffer, -EINVAL, "Bad", 16, false);
    ((struct nlmsgerr *)mnl_nlmsg_get_payload(message))->msg.nlmsg_len = UINT32_MAX;
    assert_int_equal(netlink_parse_error(message, extack), EINVAL);
    assert_string_equal(extack, "");
}

/* ------------------------------------------------------------------------------- links */
static struct nlmsghdr *link_message(struct buffer *buffer)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer->bytes);
    struct ifinfomsg *header = mnl_nlmsg_put_extra_header(message, sizeof(*header));

    message->nlmsg_type = RTM_NEWLINK;
    header->ifi_index = 42;
    header->ifi_flags = IFF_UP;
    mnl_attr_put_strz(message, IFLA_IFNAME, "mv1");
    mnl_attr_put_strz(message, IFLA_IFALIAS, "moat:0123456789ab and much more than fits there");
    mnl_attr_put_u32(message, IFLA_MTU, 1400);
    mnl_attr_put_u32(message, IFLA_GROUP, LINK_GROUP_OF(3));
    mnl_attr_put_u32(message, IFLA_MASTER, 7);
    mnl_attr_put(message, IFLA_ADDRESS, 6, "\x02\x01\x02\x03\x04\x05");
    struct nlattr *info = mnl_attr_nest_start(message, IFLA_LINKINFO);
    mnl_attr_put_strz(message, IFLA_INFO_KIND, "veth");
    mnl_attr_nest_end(message, info);
    return message;
}

static void test_link_is_read(void **state)
{
    struct link_state link;
    struct buffer buffer;

    (void)state;
    assert_int_equal(link_parse(link_message(&buffer), &link), 0);
    assert_int_equal(link.info.index, 42);
    assert_true(link.info.up);
    assert_string_equal(link.info.name, "mv1");
    assert_string_equal(link.info.alias, "moat:0123456789ab and much more");
    assert_string_equal(link.info.kind, "veth");
    assert_int_equal(link.info.master, 7);
    assert_int_equal(link.mtu, 1400);
    assert_int_equal(link.mac.bytes[5], 5);
    assert_true(link_is_ours(link.info.group, ""));
}

static void test_damaged_links_are_survived(void **state)
{
    struct link_state link;
    struct buffer buffer;
    struct nlmsghdr *message = link_message(&buffer);

    (void)state;
    for (uint32_t cut = NLMSG_HDRLEN; cut < message->nlmsg_len; cut++) {
        struct nlmsghdr *exact = malloc(cut);

        assert_non_null(exact);
        memcpy(exact, message, cut);
        exact->nlmsg_len = cut;
        int r = link_parse(exact, &link);
        assert_int_equal(r, cut < NLMSG_HDRLEN + sizeof(struct ifinfomsg) ? -EBADMSG : 0);
        free(exact);
    }
}

static void test_ownership_is_by_group_or_alias(void **state)
{
    static const struct {
        uint32_t group;
        const char *alias;
        bool ours;
    } rows[] = {
        {0, "", false},
        {1, "web", false},
        {0x6c000001, "moat", false},
        {0, "my moat:1", false},
        {LINK_GROUP_OF(1), "", true},
        {LINK_GROUP_DYING, "", true},
        {0, "moat:0123456789ab", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(link_is_ours(rows[i].group, rows[i].alias), rows[i].ours);
}

/* ------------------------------------------------------------------------------- requests */
static void test_messages_of_a_request_stand_one_behind_the_other(void **state)
{
    struct cidr address;
    struct request request;
    struct ip ip;
    int left;

    (void)state;
    assert_int_equal(cidr_parse("10.88.0.2/16", &address), 0);
    assert_int_equal(ip_parse("fd00::1", &ip), 0);
    request_init(&request);
    request_up(&request, 1, true, "bring up");
    request_address_add(&request, 2, &address, 0);
    request_proxy_add(&request, 3, &ip);
    request_dying(&request, 4);
    request_up(&request, 1, false, "the last is counted in when it is sent");
    assert_int_equal(request.count, 5);
    static const uint16_t types[] = {RTM_SETLINK, RTM_NEWADDR, RTM_NEWNEIGH, RTM_SETLINK};
    const struct nlmsghdr *message = (const struct nlmsghdr *)(void *)request.buffer;
    left = (int)request.used;
    for (size_t i = 0; i < 4; i++) {
        assert_true(mnl_nlmsg_ok(message, left));
        assert_int_equal(message->nlmsg_type, types[i]);
        assert_true(message->nlmsg_flags & NLM_F_REQUEST);
        message = mnl_nlmsg_next(message, &left);
    }
    assert_int_equal(left, 0);
}

static void test_attributes_are_bounded(void **state)
{
    struct buffer buffer;
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer.bytes);
    const struct nlattr *table[3];
    char text[4];

    (void)state;
    mnl_attr_put_u8(message, 1, 200);
    mnl_attr_put_strz(message, 2, "longer");
    mnl_attr_put_u32(message, 900, 5); /* from a newer kernel */
    netlink_parse_message(message, 0, table, 2);
    assert_int_equal(attribute_u8(table[1]), 200);
    assert_int_equal(attribute_u32(table[1]), 0); /* too short for it */
    attribute_text(table[2], text, sizeof(text));
    assert_string_equal(text, "lon");
    attribute_text(NULL, text, sizeof(text));
    assert_string_equal(text, "");
    assert_false(ip_is_set(&(struct ip){0}));
    struct ip ip = attribute_ip(AF_INET6, table[2]);
    assert_false(ip_is_set(&ip));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_and_its_text_are_read),
        cmocka_unit_test(test_damaged_errors_are_survived),
        cmocka_unit_test(test_link_is_read),
        cmocka_unit_test(test_damaged_links_are_survived),
        cmocka_unit_test(test_ownership_is_by_group_or_alias),
        cmocka_unit_test(test_messages_of_a_request_stand_one_behind_the_other),
        cmocka_unit_test(test_attributes_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
