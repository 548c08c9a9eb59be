/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "cli/command.h"

#define ARGUMENTS_MAX 32

struct parsed {
    struct invocation invocation;
    struct error error;
    int result;
};

/* Splits at spaces; "''" is an empty argument. The arguments live as long as `line`. */
static void parse(char *line, struct parsed *ret_parsed)
{
    static char *argv[ARGUMENTS_MAX + 1];
    int argc = 0;
    char *rest = line;
    char *word;

    argv[argc++] = (char[]){"moat"};
    while ((word = strsep(&rest, " ")) && argc < ARGUMENTS_MAX)
        argv[argc++] = strcmp(word, "''") == 0 ? word + 2 : word;
    argv[argc] = NULL;
    ret_parsed->error = ERROR_INIT;
    invocation_init(&ret_parsed->invocation);
    ret_parsed->result = option_parse(argc, argv, &ret_parsed->invocation, &ret_parsed->error);
}

#define PARSE(parsed, text) \
    char line_[] = text;    \
    struct parsed parsed;   \
    parse(line_, &parsed)

static void assert_usage_error(const char *text, const char *says)
{
    char line[256];
    struct parsed parsed;

    assert_true(strlen(text) < sizeof(line));
    memcpy(line, text, strlen(text) + 1);
    parse(line, &parsed);
    if (parsed.result != -EINVAL || !strstr(parsed.error.text, says))
        fail_msg("moat %s: result %d, \"%s\" has no \"%s\"", text, parsed.result, parsed.error.text,
                 says);
    invocation_deinit(&parsed.invocation);
}

static void options_fill_the_params_of_the_method(void **state)
{
    PARSE(parsed, "net create web --subnet 10.1.0.0/24 --gateway=10.1.0.9 --internal --mtu 1400 "
                  "--dns 9.9.9.9 "
                  "--dns 2001:db8::1 --label a=b=c --no-dns");
    const struct network_create_params *params = &parsed.invocation.params.network_create;
    char text[CIDR_TEXT_MAX];

    (void)state;
    assert_int_equal(parsed.result, 0);
    assert_string_equal(params->name, "web");
    assert_string_equal(cidr_format(&params->subnet, text), "10.1.0.0/24");
    assert_string_equal(ip_format(&params->gateway, text), "10.1.0.9");
    assert_true(params->internal);
    assert_false(params->isolated);
    assert_false(params->dns);
    assert_int_equal(params->mtu, 1400);
    assert_int_equal(params->dns_servers.count, 2);
    assert_string_equal(labels_find(&params->labels, "a"), "b=c");
    invocation_deinit(&parsed.invocation);
}

static void defaults_are_those_of_the_method(void **state)
{
    PARSE(parsed, "net create web");

    (void)state;
    assert_true(parsed.invocation.params.network_create.dns);
    invocation_deinit(&parsed.invocation);
}

static void global_options_stand_anywhere(void **state)
{
    static const char *const lines[] = {
        "--json --socket /s net ls -q",
        "net --json ls --socket=/s -q",
        "net ls -q --socket /s --json",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        char line[128];
        struct parsed parsed;

        memcpy(line, lines[i], strlen(lines[i]) + 1);
        parse(line, &parsed);
        assert_int_equal(parsed.result, 0);
        assert_true(parsed.invocation.json);
        assert_true(parsed.invocation.quiet);
        assert_string_equal(parsed.invocation.socket, "/s");
        invocation_deinit(&parsed.invocation);
    }
}

static void letters_take_their_value_attached_or_apart(void **state)
{
    PARSE(parsed, "run -nweb -p 8080:80 -p53/udp -e A=1 -eB true");
    const struct guest_attach_params *params = &parsed.invocation.params.guest_attach;

    (void)state;
    assert_int_equal(parsed.result, 0);
    assert_string_equal(params->name, "web");
    assert_int_equal(params->ports.count, 2);
    assert_string_equal(params->ports.items[1], "53/udp");
    assert_int_equal(parsed.invocation.process.env.count, 2);
    assert_string_equal(parsed.invocation.command_line[0], "true");
    invocation_deinit(&parsed.invocation);
}

static void nothing_of_the_command_is_an_option_of_moat(void **state)
{
    PARSE(parsed, "run -n web ls --json -q -- --help");

    (void)state;
    assert_int_equal(parsed.result, 0);
    assert_false(parsed.invocation.json);
    assert_false(parsed.invocation.help);
    assert_string_equal(parsed.invocation.command_line[0], "ls");
    assert_string_equal(parsed.invocation.command_line[3], "--");
    assert_string_equal(parsed.invocation.command_line[4], "--help");
    invocation_deinit(&parsed.invocation);
}

static void two_dashes_end_the_options(void **state)
{
    PARSE(parsed, "run -n web -- --strange -x");

    (void)state;
    assert_int_equal(parsed.result, 0);
    assert_string_equal(parsed.invocation.command_line[0], "--strange");
    invocation_deinit(&parsed.invocation);
}

static void exec_takes_options_between_guest_and_command(void **state)
{
    PARSE(parsed, "exec web -u 1000:1000 -- id -u");

    (void)state;
    assert_int_equal(parsed.result, 0);
    assert_string_equal(parsed.invocation.params.name.name, "web");
    assert_string_equal(parsed.invocation.process.user, "1000:1000");
    assert_string_equal(parsed.invocation.command_line[0], "id");
    assert_string_equal(parsed.invocation.command_line[1], "-u");
    invocation_deinit(&parsed.invocation);
}

static void tap_has_its_name_behind_an_equals_sign_only(void **state)
{
    PARSE(parsed, "attach vm --network default --tap --tap-owner 1000:100 --vnet-hdr");
    const struct guest_attach_params *params = &parsed.invocation.params.guest_attach;

    (void)state;
    assert_int_equal(parsed.result, 0);
    assert_true(params->tap.given);
    assert_string_equal(params->tap.name, "");
    assert_int_equal(params->tap.owner, 1000);
    assert_int_equal(params->tap.group, 100);
    assert_true(params->tap.vnet_hdr);
    invocation_deinit(&parsed.invocation);
}

static void the_last_of_an_option_counts_unless_it_repeats(void **state)
{
    PARSE(parsed,
          "run --mode outbound --mode full --allow any --allow @public --deny 10.0.0.0/8 true");
    const struct guest_attach_params *params = &parsed.invocation.params.guest_attach;

    (void)state;
    assert_int_equal(parsed.result, 0);
    assert_true(params->has_mode);
    assert_int_equal(params->mode, MODE_FULL);
    assert_int_equal(params->policy.allow.count, 2);
    assert_int_equal(params->policy.deny.count, 1);
    invocation_deinit(&parsed.invocation);
}

static void an_address_of_add_host_may_stand_in_brackets(void **state)
{
    PARSE(parsed, "run --add-host db:192.0.2.7 --add-host six:[2001:db8::7] --add-host "
                  "six:2001:db8:0::8 true");
    const struct strings *hosts = &parsed.invocation.params.guest_attach.hosts;

    (void)state;
    assert_int_equal(parsed.result, 0);
    assert_string_equal(hosts->items[0], "db:192.0.2.7");
    assert_string_equal(hosts->items[1], "six:2001:db8::7");
    assert_string_equal(hosts->items[2], "six:2001:db8::8");
    invocation_deinit(&parsed.invocation);
}

static void help_needs_nothing_else(void **state)
{
    static const char *const lines[] = {"--help", "net --help", "net create --help", "run -h",
                                        "help net create"};

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        char line[64];
        struct parsed parsed;

        memcpy(line, lines[i], strlen(lines[i]) + 1);
        parse(line, &parsed);
        assert_int_equal(parsed.result, 0);
        assert_true(parsed.invocation.help);
        invocation_deinit(&parsed.invocation);
    }
}

static void usage_errors_name_the_culprit_and_the_remedy(void **state)
{
    static const struct {
        const char *line;
        const char *says;
    } rows[] = {
        {"''", "there is no command"},
        {"nett ls", "did you mean \"net\"?"},
        {"net creat x", "did you mean \"net create\"?"},
        {"frobnicate", "\"moat --help\" lists them"},
        {"net", "which command?"},
        {"net create", "needs NAME"},
        {"net create a b", "\"b\" is one argument too many"},
        {"net create a --subnte 10.0.0.0/8", "did you mean --subnet?"},
        {"net create a --xyzzy", "\"moat net create --help\""},
        {"net ls -x", "no option -x"},
        {"net create a --subnet", "--subnet needs a value: --subnet CIDR"},
        {"net create a --internal=yes", "--internal takes no value"},
        {"net create a --subnet 10.0.0.0", "--subnet: \"10.0.0.0\" is not an IPv4 network"},
        {"net create a --subnet 2001:db8::/64", "is not an IPv4 network"},
        {"net create a --subnet6 10.0.0.0/8", "is not an IPv6 network"},
        {"net create a --gateway 10.0.0.256", "is not an IPv4 address"},
        {"net create a --mtu 575", "whole number from 576 to 65535"},
        {"net create a --mtu 0x600", "whole number"},
        {"net create a --mtu -1", "whole number"},
        {"net create a --bridge seventeen-letters", "interface name"},
        {"net create a --label nothing", "KEY=VALUE"},
        {"net create Web", "is not a name"},
        {"net create -- -web", "is not a name"},
        {"net rm ok not_ok", "is not a name"},
        {"net inspect", "needs NAME"},
        {"--socket", "--socket needs a value"},
        {"run", "needs a COMMAND"},
        {"run -n web", "needs a COMMAND"},
        {"run --mode half true", "a mode: disabled, loopback, outbound or full"},
        {"run -p 80:90:100 true", "--publish: port \"80:90:100\""},
        {"run -p 0 true", "ports are 1 to 65535"},
        {"run --dns example.org true", "is not an IP address"},
        {"run --dns-search a..b true", "is not a domain"},
        {"run --add-host db true", "NAME:IP"},
        {"run --add-host db:1.2.3 true", "NAME:IP"},
        {"run --hostname a..b true", "is not a hostname"},
        {"run -e =x true", "is not K=V"},
        {"run -u : true", "is not UID[:GID]"},
        {"run --network default,ip=10.0.0.1,colour=red true", "ip=A, ip6=A, mac=M or alias=N"},
        {"exec", "needs GUEST"},
        {"exec web", "needs a COMMAND"},
        {"attach web --network a --pid 1 --tap", "one of --netns, --pid and --tap"},
        {"attach web --network a --pid 0", "is not a process id"},
        {"attach web --network a --netns=", "the path is empty"},
        {"attach web --network a --tap=a/b", "interface name"},
        {"port add web", "needs PORT"},
        {"port add web 80 x", "is not a port number"},
        {"localhost web maybe", "neither on nor off"},
        {"dns add web", "needs TYPE|IP"},
        {"dns add web 1.2.3", "neither an IP address nor a type: A, AAAA, CNAME, TXT or SRV"},
        {"dns add web PTR web", "come by themselves"},
        {"dns add web MX 10", "neither an IP address nor a type"},
        {"dns add we_b! 1.2.3.4", "is not a DNS name"},
        {"net create -blue", "as in \"-blue\""},
        {"completion tcsh", "bash, zsh or fish"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_usage_error(rows[i].line, rows[i].says);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_fill_the_params_of_the_method),
        cmocka_unit_test(defaults_are_those_of_the_method),
        cmocka_unit_test(global_options_stand_anywhere),
        cmocka_unit_test(letters_take_their_value_attached_or_apart),
        cmocka_unit_test(nothing_of_the_command_is_an_option_of_moat),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(exec_takes_options_between_guest_and_command),
        cmocka_unit_test(tap_has_its_name_behind_an_equals_sign_only),
        cmocka_unit_test(the_last_of_an_option_counts_unless_it_repeats),
        cmocka_unit_test(an_address_of_add_host_may_stand_in_brackets),
        cmocka_unit_test(help_needs_nothing_else),
        cmocka_unit_test(usage_errors_name_the_culprit_and_the_remedy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
