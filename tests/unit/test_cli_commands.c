/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tables of commands and options, and what is made from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/command.h"
#include "cli/value.h"

#define MANUAL "../../docs/man/moat.1" /* from this file's folder */

static const struct option *option_of(const struct command *command, const char *name)
{
    for (const struct option *option = command->options; option && option->name; option++)
        if (strcmp(option->name, name) == 0)
            return option;
    return NULL;
}

static void every_command_of_the_contract_is_there(void **state)
{
    static const char *const rows[][2] = {
        {"net", "create"}, {"net", "ls"},       {"net", "inspect"},  {"net", "rm"},
        {"net", "prune"},  {NULL, "run"},       {NULL, "attach"},    {NULL, "detach"},
        {NULL, "exec"},    {NULL, "ps"},        {NULL, "inspect"},   {"port", "add"},
        {"port", "rm"},    {"port", "ls"},      {NULL, "localhost"}, {"policy", "show"},
        {"policy", "set"}, {"dns", "ls"},       {"dns", "add"},      {"dns", "rm"},
        {NULL, "events"},  {NULL, "status"},    {NULL, "doctor"},    {NULL, "teardown"},
        {"compose", "up"}, {"compose", "down"}, {"compose", "ps"},   {"dns", "flush"},
        {"dns", "log"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_non_null(command_find(rows[i][0], rows[i][1]));
}

static void every_row_says_what_it_is(void **state)
{
    const struct command *command;

    (void)state;
    for (size_t i = 0; (command = command_get(i)); i++) {
        assert_true(command->summary && command->summary[0] &&
                    islower((unsigned char)command->summary[0]));
        assert_non_null(command->run);
        if (command->group)
            assert_true(command_group_exists(command->group));
        for (const struct option *option = command->options; option && option->name; option++) {
            assert_true(option->doc && option->doc[0]);
            assert_true(option->kind == OPTION_FLAG || option->value);
            assert_true(option->field || option->set);
        }
        for (const struct positional *row = command->positionals; row && row->name; row++)
            assert_true(row->field || row->set);
    }
}

static void names_and_letters_are_unique(void **state)
{
    const struct command *command;

    (void)state;
    for (size_t i = 0; (command = command_get(i)); i++) {
        assert_ptr_equal(command_find(command->group, command->name), command);
        for (const struct option *option = command->options; option && option->name; option++) {
            assert_ptr_equal(option_of(command, option->name), option);
            for (const struct option *other = option + 1; other->name; other++)
                assert_true(option->letter == 0 || option->letter != other->letter);
            for (const struct option *global = option_globals; global->name; global++)
                assert_true(strcmp(global->name, option->name) != 0 &&
                            (option->letter == 0 || option->letter != global->letter));
        }
    }
}

static void every_field_exists(void **state)
{
    const struct command *command;
    size_t offset;

    (void)state;
    for (size_t i = 0; (command = command_get(i)); i++) {
        const struct proto_object *params =
            command->method < METHOD_COUNT_ ? proto_method_get(command->method)->params : NULL;

        for (const struct option *option = command->options; option && option->name; option++)
            if (option->field)
                assert_non_null(params ? value_field_find(params, option->field, &offset) : NULL);
        for (const struct positional *row = command->positionals; row && row->name; row++)
            if (row->field)
                assert_non_null(params ? value_field_find(params, row->field, &offset) : NULL);
    }
}

/* --- the other way round: each member of each method can be given --- */

/* What the command line has no use for: a descriptor can't be named there, and the rest the
 * commands set. */
static bool is_set_by_commands(const char *method, const char *path)
{
    static const char *const rows[][2] = {
        {"guest.attach", "kind"},    {"guest.attach", "netns_fd"},  {"guest.attach", "ephemeral"},
        {"guest.attach", "tap.fd"},  {"guest.attach", "tap.group"}, {"dns.add", "ip"},
        {"dns.log", "since"},        {"dns.remove", "ip"},          {"policy.learn", "enabled"},
        {"policy.learned", "guest"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (strcmp(rows[i][0], method) == 0 && strcmp(rows[i][1], path) == 0)
            return true;
    return false;
}

static bool row_fills(const char *field, const char *path)
{
    return field && strcmp(field, path) == 0;
}

static bool is_reachable(enum method_id method, const char *path)
{
    const struct command *command;

    for (size_t i = 0; (command = command_get(i)); i++) {
        if (command->method != method)
            continue;
        for (const struct option *option = command->options; option && option->name; option++)
            if (row_fills(option->field, path))
                return true;
        for (const struct positional *row = command->positionals; row && row->name; row++)
            if (row_fills(row->field, path))
                return true;
    }
    return is_set_by_commands(proto_method_get(method)->name, path);
}

static void check_members(enum method_id method, const struct proto_object *object,
                          const char *prefix)
{
    for (size_t i = 0; i < object->n_fields; i++) {
        const struct proto_field *field = &object->fields[i];
        char path[128];

        snprintf(path, sizeof(path), "%s%s", prefix, field->name);
        if (field->type == PROTO_OBJECT) {
            strncat(path, ".", sizeof(path) - strlen(path) - 1);
            check_members(method, field->object, path);
        } else if (!is_reachable(method, path)) {
            fail_msg("no option fills %s of %s", path, proto_method_get(method)->name);
        }
    }
}

static void every_member_of_every_method_can_be_given(void **state)
{
    (void)state;
    for (enum method_id method = 0; method < METHOD_COUNT_; method++)
        check_members(method, proto_method_get(method)->params, "");
}

static void every_method_has_a_command(void **state)
{
    (void)state;
    for (enum method_id method = 0; method < METHOD_COUNT_; method++) {
        const struct command *command;
        bool found = false;

        for (size_t i = 0; (command = command_get(i)); i++)
            found |= command->method == method;
        if (!found && method != METHOD_POLICY_LEARNED) /* the second call of policy learn */
            fail_msg("no command calls %s", proto_method_get(method)->name);
    }
}

/* --- help --- */

static void assert_lines_fit(const char *text)
{
    for (; *text; text += strcspn(text, "\n") + 1)
        if (strcspn(text, "\n") > 100)
            fail_msg("too long for a terminal: %.*s", (int)strcspn(text, "\n"), text);
}

static void help_shows_every_option(void **state)
{
    const struct command *command;

    (void)state;
    for (size_t i = 0; (command = command_get(i)); i++) {
        struct text help = {0};

        command_help_write(&help, NULL, command);
        assert_false(help.failed);
        assert_non_null(strstr(help.data, "Usage: moat "));
        assert_lines_fit(help.data);
        for (const struct option *option = command->options; option && option->name; option++) {
            char name[64];

            snprintf(name, sizeof(name), "--%s", option->name);
            assert_non_null(strstr(help.data, name));
        }
        text_deinit(&help);
    }
}

static void help_of_moat_and_of_groups_shows_every_command(void **state)
{
    const struct command *command;
    struct text overview = {0};

    (void)state;
    command_help_write(&overview, NULL, NULL);
    for (size_t i = 0; (command = command_get(i)); i++) {
        struct text group = {0};

        assert_non_null(strstr(overview.data, command->group ? command->group : command->name));
        if (command->group) {
            command_help_write(&group, command->group, NULL);
            assert_non_null(strstr(group.data, command->summary));
        } else {
            assert_non_null(strstr(overview.data, command->summary));
        }
        text_deinit(&group);
    }
    text_deinit(&overview);
}

/* --- the manual page --- */

static char *read_manual(void)
{
    const char *slash = strrchr(__FILE__, '/');
    _cleanup_fclose_ FILE *file = NULL;
    char path[4096];
    char *text;

    snprintf(path, sizeof(path), "%.*s" MANUAL, slash ? (int)(slash - __FILE__) + 1 : 0, __FILE__);
    file = fopen(path, "re");
    assert_non_null(file);
    text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    return text;
}

/* The part of the page about one command: from its ".SS" to the next; malloc'ed. */
static char *manual_section(const char *manual, const struct command *command)
{
    char heading[96];
    const char *begin;
    const char *end;

    snprintf(heading, sizeof(heading), "\n.SS moat %s%s%s", command->group ? command->group : "",
             command->group ? " " : "", command->name);
    begin = strstr(manual, heading);
    while (begin && !strchr(" \n", begin[strlen(heading)]))
        begin = strstr(begin + 1, heading);
    if (!begin)
        fail_msg("moat.1 has no section \"%s\"", heading + 1);
    end = strstr(begin + 1, "\n.S");
    return strndup(begin, end ? (size_t)(end - begin) : strlen(begin));
}

/* "\-\-ip\-range" as roff wants it. */
static void roff_name(const char *name, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "\\-\\-");

    for (; *name && used + 3 < size; name++)
        used += (size_t)snprintf(text + used, size - used, *name == '-' ? "\\-" : "%c", *name);
}

static void the_manual_has_every_option_of_every_command(void **state)
{
    char *manual = read_manual();
    const struct command *command;

    (void)state;
    for (size_t i = 0; (command = command_get(i)); i++) {
        char *section = manual_section(manual, command);

        for (const struct option *option = command->options; option && option->name; option++) {
            char name[128];

            roff_name(option->name, name, sizeof(name));
            if (!strstr(section, name))
                fail_msg("moat.1: the section of %s has no %s", command->name, name);
        }
        free(section);
    }
    free(manual);
}

/* Each option that the page names exists. */
static void the_manual_has_no_other_options(void **state)
{
    char *manual = read_manual();
    const struct command *command;

    (void)state;
    for (size_t i = 0; (command = command_get(i)); i++) {
        char *section = manual_section(manual, command);

        for (char *at = section; (at = strstr(at, "\n.BR \\-\\-")) || (at = NULL); at++) {
            char name[64] = "";
            size_t used = 0;

            for (const char *c = at + 9; *c && !strchr(" \n=[", *c) && used + 1 < sizeof(name); c++)
                if (*c != '\\')
                    name[used++] = *c;
            if (!option_of(command, name))
                fail_msg("moat.1: moat %s has no option --%s", command->name, name);
        }
        free(section);
    }
    free(manual);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_of_the_contract_is_there),
        cmocka_unit_test(every_row_says_what_it_is),
        cmocka_unit_test(names_and_letters_are_unique),
        cmocka_unit_test(every_field_exists),
        cmocka_unit_test(every_member_of_every_method_can_be_given),
        cmocka_unit_test(every_method_has_a_command),
        cmocka_unit_test(help_shows_every_option),
        cmocka_unit_test(help_of_moat_and_of_groups_shows_every_command),
        cmocka_unit_test(the_manual_has_every_option_of_every_command),
        cmocka_unit_test(the_manual_has_no_other_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
