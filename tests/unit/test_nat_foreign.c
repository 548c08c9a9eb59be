/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What other firewalls' rules make of a packet: rules as their programs write them, in a namespace
 * of its own for each case. Needs root and nft; iptables where it is there. */
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/netfilter.h>

#include "nat/foreign.h"
#include "nat_topology.h"

/* From a guest behind moat0 to the outside behind eth0; on the input hook to its gateway. */
struct asked {
    uint32_t hook;
    uint8_t family;
    uint8_t protocol;
    uint16_t port;
    bool published;
};

static const struct asked out = {NF_INET_FORWARD, AF_INET, IPPROTO_TCP, 443, false};
static const struct asked out6 = {NF_INET_FORWARD, AF_INET6, IPPROTO_TCP, 443, false};
static const struct asked published = {NF_INET_FORWARD, AF_INET, IPPROTO_TCP, 80, true};
static const struct asked dns = {NF_INET_LOCAL_IN, AF_INET, IPPROTO_UDP, 53, false};

static struct foreign_packet packet_of(const struct asked *asked)
{
    bool six = asked->family == AF_INET6;
    bool forward = asked->hook == NF_INET_FORWARD;
    struct foreign_packet packet = {
        .hook = asked->hook,
        .source = ip_of(six ? "fd00:88::2" : "10.88.0.2"),
        .destination = ip_of(six       ? "2a00::1"
                             : forward ? "1.1.1.1"
                                       : "10.88.0.1"),
        .protocol = asked->protocol,
        .source_port = 40000,
        .destination_port = asked->port,
        .published = asked->published,
    };

    snprintf(packet.in, sizeof(packet.in), "moat0");
    snprintf(packet.out, sizeof(packet.out), "%s", forward ? "eth0" : "");
    return packet;
}

static void shell(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

static struct foreign_answer answer_to(const struct asked *asked)
{
    struct foreign_packet packet = packet_of(asked);
    struct foreign_answer answer;
    struct foreign *foreign = NULL;
    struct error error = ERROR_INIT;
    struct nat *nat = NULL;

    if (nat_open(0x6d000000, 0xff000000, &nat, &error) < 0 ||
        foreign_load(nat, &foreign, &error) < 0)
        fail_msg("%s", error.text);
    foreign_ask(foreign, &packet, &answer);
    foreign_free(foreign);
    nat_close(nat);
    return answer;
}

struct situation {
    const char *rules; /* a command of the shell, or what nft reads */
    const struct asked *asked;
    enum foreign_verdict verdict;
    const char *by;
};

static void fresh(void)
{
    assert_int_equal(unshare(CLONE_NEWNET), 0);
}

static void judge(const struct situation *situation)
{
    struct foreign_answer answer = answer_to(situation->asked);

    if (answer.verdict != situation->verdict)
        fail_msg("%s: %d by \"%s\"", situation->rules, answer.verdict, answer.by);
    if (situation->verdict != FOREIGN_PASSES)
        assert_string_equal(answer.by, situation->by);
}

static void judge_all(const struct situation *situations, size_t count, const char *program)
{
    for (size_t i = 0; i < count; i++) {
        char *command = NULL;

        fresh();
        if (asprintf(&command, "%s%s%s", program, situations[i].rules, *program ? "'" : "") < 0)
            fail();
        shell(command);
        free(command);
        judge(&situations[i]);
    }
}

/* --- nft --- */

#define FORWARD(policy, rules)                                                                 \
    "table inet fw { chain f { type filter hook forward priority 0; policy " policy "; " rules \
    "; }; }"
#define INPUT(policy, rules)                                                                 \
    "table inet fw { chain i { type filter hook input priority 0; policy " policy "; " rules \
    "; }; }"
#define F "inet fw f"
#define I "inet fw i"

static void rules_of_nft_are_followed(void **state)
{
    static const struct situation situations[] = {
        {"list tables", &out, FOREIGN_PASSES, ""},
        {FORWARD("accept", ""), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", ""), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", ""), &dns, FOREIGN_PASSES, ""},
        {FORWARD("drop", ""), &out6, FOREIGN_DROPS, F},
        {"table ip6 a { chain f { type filter hook forward priority 0; policy drop; }; }", &out,
         FOREIGN_PASSES, ""},
        {"table bridge a { chain f { type filter hook forward priority 0; policy drop; }; }", &out,
         FOREIGN_PASSES, ""},
        /* the last rule */
        {FORWARD("accept", "counter drop"), &out, FOREIGN_DROPS, F},
        {FORWARD("accept",
                 "ct state established,related accept; reject with icmpx admin-prohibited"),
         &out, FOREIGN_DROPS, F},
        {FORWARD("accept", "log prefix \"no \" drop"), &out, FOREIGN_DROPS, F},
        /* what is let pass before */
        {FORWARD("drop", "iifname \"moat0\" accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "iifname \"moat*\" accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "iifname \"docker*\" accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", "iifname \"moat1\" accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", "oifname \"eth0\" accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "oifname != \"eth0\" accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", "ip saddr 10.88.0.0/16 accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "ip saddr 10.0.0.0/9 accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "ip saddr 10.89.0.0/16 accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", "ip saddr 10.88.0.0/16 accept"), &out6, FOREIGN_DROPS, F},
        {FORWARD("drop", "ip6 saddr fd00:88::/32 accept"), &out6, FOREIGN_PASSES, ""},
        {FORWARD("drop", "ip daddr 1.0.0.0-1.2.0.0 accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "tcp dport 443 accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "udp dport 443 accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", "tcp flags syn / syn,rst accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "ct state new accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "ct status dnat accept"), &published, FOREIGN_PASSES, ""},
        {FORWARD("drop", "ct status dnat accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("accept", "meta l4proto tcp ip daddr 1.1.1.1 drop"), &out, FOREIGN_DROPS, F},
        {FORWARD("accept", "ip daddr 9.9.9.9 drop"), &out, FOREIGN_PASSES, ""},
        /* sets and maps */
        {FORWARD("drop", "iifname { \"lo\", \"moat0\" } accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "iifname { \"lo\", \"eth1\" } accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", "tcp dport { 22, 80, 443 } accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "tcp dport { 22, 80, 444-1000 } accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", "tcp dport { 22, 400-500 } accept"), &out, FOREIGN_PASSES, ""},
        {FORWARD("drop", "tcp dport != { 22, 400-500 } accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", "ip saddr { 10.0.0.0/8, 192.168.0.0/16 } accept"), &out, FOREIGN_PASSES,
         ""},
        {FORWARD("drop", "ip saddr { 10.87.0.0/16, 10.89.0.0/16 } accept"), &out, FOREIGN_DROPS, F},
        {FORWARD("drop", "ct state vmap { established : accept, invalid : drop }"), &out,
         FOREIGN_DROPS, F},
        {FORWARD("drop", "ct state vmap { established : accept, new : accept }"), &out,
         FOREIGN_PASSES, ""},
        {FORWARD("drop", "iifname . oifname { \"moat0\" . \"eth0\" } accept"), &out, FOREIGN_PASSES,
         ""},
        {FORWARD("drop", "ip saddr . tcp dport { 10.88.0.2 . 443 } accept"), &out, FOREIGN_PASSES,
         ""},
        {FORWARD("drop", "ip saddr . tcp dport { 10.88.0.2 . 80 } accept"), &out, FOREIGN_DROPS, F},
        /* what can't be told */
        {FORWARD("drop", "meta mark 7 accept"), &out, FOREIGN_UNSURE, F},
        {FORWARD("accept", "meta mark 7 drop"), &out, FOREIGN_UNSURE, F},
        {FORWARD("accept", "limit rate over 10/second drop"), &out, FOREIGN_UNSURE, F},
        {FORWARD("drop", "meta mark 7 drop"), &out, FOREIGN_DROPS, F},
        {FORWARD("accept", "meta mark 7 accept; drop"), &out, FOREIGN_UNSURE, F},
        /* chains */
        {"table inet fw { chain ours { iifname \"moat0\" accept; }; chain f { type filter hook "
         "forward priority 0; policy drop; jump ours; }; }",
         &out, FOREIGN_PASSES, ""},
        {"table inet fw { chain ours { return; accept; }; chain f { type filter hook forward "
         "priority 0; policy drop; jump ours; }; }",
         &out, FOREIGN_DROPS, F},
        {"table inet fw { chain no { drop; }; chain f { type filter hook forward priority 0; "
         "meta mark 7 jump no; }; }",
         &out, FOREIGN_UNSURE, F},
        {"table inet fw { chain no { ct state established accept; }; chain f { type filter hook "
         "forward priority 0; policy drop; goto no; accept; }; }",
         &out, FOREIGN_DROPS, F},
        {"table inet fw { chain a { reject; }; chain z { goto a; }; chain f { type filter hook "
         "forward priority 0; iifname vmap { \"eth0\" : accept, \"moat0\" : jump z }; }; }",
         &out, FOREIGN_DROPS, F},
        /* an accept of one is none of another */
        {FORWARD("accept",
                 "accept") "; table ip b { chain g { type filter hook forward priority 10; "
                           "policy drop; }; }",
         &out, FOREIGN_DROPS, "ip b g"},
        /* to the host itself */
        {INPUT("drop", "ct state established,related accept; tcp dport 22 accept"), &dns,
         FOREIGN_DROPS, I},
        {INPUT("drop", "udp dport 53 accept"), &dns, FOREIGN_PASSES, ""},
        {INPUT("drop", "iifname \"lo\" accept; iifname \"moat*\" udp dport { 53, 67 } accept"),
         &dns, FOREIGN_PASSES, ""},
        {INPUT("accept", "ct state established accept; reject"), &dns, FOREIGN_DROPS, I},
    };

    (void)state;
    judge_all(situations, ARRAY_SIZE(situations), "nft '");
}

/* --- iptables of both kinds --- */

static void iptables_is_followed(const char *program, const char *name)
{
    const struct situation situations[] = {
        {"%s -P FORWARD DROP", &out, FOREIGN_DROPS, "FORWARD"},
        {"%s -P INPUT DROP", &out, FOREIGN_PASSES, ""},
        {"%s -P INPUT DROP", &dns, FOREIGN_DROPS, "INPUT"},
        {"%s -P FORWARD DROP", &out6, FOREIGN_PASSES, ""},
        {"%s -A FORWARD -j REJECT", &out, FOREIGN_DROPS, "FORWARD"},
        {"%s -A FORWARD -m comment --comment no -j DROP", &out, FOREIGN_DROPS, "FORWARD"},
        {"%s -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; %s -A FORWARD -j "
         "REJECT",
         &out, FOREIGN_DROPS, "FORWARD"},
        {"%s -P FORWARD DROP; %s -A FORWARD -m conntrack --ctstate NEW -j ACCEPT", &out,
         FOREIGN_PASSES, ""},
        {"%s -P FORWARD DROP; %s -A FORWARD -m conntrack ! --ctstate NEW -j ACCEPT", &out,
         FOREIGN_DROPS, "FORWARD"},
        {"%s -P FORWARD DROP; %s -A FORWARD -i moat0 -j ACCEPT", &out, FOREIGN_PASSES, ""},
        {"%s -P FORWARD DROP; %s -A FORWARD -i moat+ -j ACCEPT", &out, FOREIGN_PASSES, ""},
        {"%s -P FORWARD DROP; %s -A FORWARD ! -i moat0 -j ACCEPT", &out, FOREIGN_DROPS, "FORWARD"},
        {"%s -P FORWARD DROP; %s -A FORWARD -i docker0 -j ACCEPT", &out, FOREIGN_DROPS, "FORWARD"},
        {"%s -P FORWARD DROP; %s -A FORWARD -o eth0 -s 10.88.0.0/16 -j ACCEPT", &out,
         FOREIGN_PASSES, ""},
        {"%s -P FORWARD DROP; %s -A FORWARD -s 10.89.0.0/16 -j ACCEPT", &out, FOREIGN_DROPS,
         "FORWARD"},
        {"%s -P FORWARD DROP; %s -A FORWARD -p udp -j ACCEPT", &out, FOREIGN_DROPS, "FORWARD"},
        {"%s -P FORWARD DROP; %s -A FORWARD -m mark --mark 7 -j ACCEPT", &out, FOREIGN_UNSURE,
         "FORWARD"},
        {"%s -A FORWARD -j LOG", &out, FOREIGN_PASSES, ""},
        /* as Docker has it */
        {"%s -P FORWARD DROP; %s -N DOCKER-USER; %s -A FORWARD -j DOCKER-USER; %s -A DOCKER-USER "
         "-j "
         "RETURN",
         &out, FOREIGN_DROPS, "FORWARD"},
        {"%s -P FORWARD DROP; %s -N DOCKER-USER; %s -A FORWARD -j DOCKER-USER; %s -A DOCKER-USER "
         "-s "
         "10.88.0.0/16 -j ACCEPT",
         &out, FOREIGN_PASSES, ""},
        {"%s -N a; %s -A a -p icmp -j ACCEPT; %s -P FORWARD DROP; %s -A FORWARD -g a; %s -A "
         "FORWARD "
         "-j ACCEPT",
         &out, FOREIGN_DROPS, "FORWARD"},
    };
    char command[512];
    char by[64];

    for (size_t i = 0; i < ARRAY_SIZE(situations); i++) {
        struct situation situation = situations[i];
        size_t length = 0;

        fresh();
        for (const char *at = situation.rules; *at; at++) {
            bool here = at[0] == '%' && at[1] == 's';

            length += (size_t)snprintf(command + length, sizeof(command) - length, "%.*s",
                                       here ? (int)strlen(program) : 1, here ? program : at);
            at += here;
        }
        shell(command);
        snprintf(by, sizeof(by), "%s filter %s", name, situation.by);
        situation.by = by;
        judge(&situation);
    }
}

static bool have(const char *program)
{
    char command[128];

    snprintf(command, sizeof(command), "command -v %s >/dev/null", program);
    return system(command) == 0;
}

static void rules_of_iptables_are_followed(void **state)
{
    (void)state;
    if (!have("iptables-nft"))
        skip();
    iptables_is_followed("iptables-nft", "ip");
}

static void rules_of_iptables_legacy_are_followed(void **state)
{
    (void)state;
    fresh();
    if (!have("iptables-legacy") || system("iptables-legacy -S >/dev/null 2>&1") != 0)
        skip();
    iptables_is_followed("iptables-legacy", "iptables-legacy");
}

static void rules_of_ip6tables_legacy_are_followed(void **state)
{
    static const struct situation situations[] = {
        {"ip6tables-legacy -P FORWARD DROP", &out6, FOREIGN_DROPS,
         "ip6tables-legacy filter FORWARD"},
        {"ip6tables-legacy -P FORWARD DROP", &out, FOREIGN_PASSES, ""},
        {"ip6tables-legacy -P FORWARD DROP; ip6tables-legacy -A FORWARD -p tcp -s fd00:88::/64 -j "
         "ACCEPT",
         &out6, FOREIGN_PASSES, ""},
        {"ip6tables-legacy -P FORWARD DROP; ip6tables-legacy -A FORWARD ! -s fd00:88::/64 -j "
         "ACCEPT",
         &out6, FOREIGN_DROPS, "ip6tables-legacy filter FORWARD"},
    };

    (void)state;
    fresh();
    if (!have("ip6tables-legacy") || system("ip6tables-legacy -S >/dev/null 2>&1") != 0)
        skip();
    judge_all(situations, ARRAY_SIZE(situations), "");
}

/* To ask for a table of iptables-legacy would make it. */
static void looking_changes_nothing(void **state)
{
    (void)state;
    fresh();
    (void)answer_to(&out);
    (void)answer_to(&out6);
    if (have("iptables-legacy"))
        shell("! grep -q . /proc/net/ip_tables_names && ! grep -q . /proc/net/ip6_tables_names");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_of_nft_are_followed),
        cmocka_unit_test(rules_of_iptables_are_followed),
        cmocka_unit_test(rules_of_iptables_legacy_are_followed),
        cmocka_unit_test(rules_of_ip6tables_legacy_are_followed),
        cmocka_unit_test(looking_changes_nothing),
    };

    if (!can_make_namespaces())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
