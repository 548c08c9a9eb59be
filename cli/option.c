/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parser. Words and options may be mixed; the command's name is made of the first one or two
 * words. Where a command takes COMMAND, the first word behind its positional arguments begins it,
 * and nothing from there on is moat's. "--" makes words of everything that follows. */
#include "option.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "value.h"

#define SUGGESTION_MAX 48 /* names longer than this are not compared */

struct parser {
    struct invocation *invocation;
    struct error *error;
    char **next; /* the argument to be read next */
    char **end;
    bool only_words; /* behind "--" */
    size_t n_positionals;
};

/* --- globals --- */

static int set_json(struct invocation *invocation, const char *value, struct error *error)
{
    (void)value;
    (void)error;
    invocation->json = true;
    return 0;
}

static int set_socket(struct invocation *invocation, const char *value, struct error *error)
{
    if (value[0] == '\0')
        return option_refuse(error, "the path is empty");
    invocation->socket = value;
    return 0;
}

static int set_help(struct invocation *invocation, const char *value, struct error *error)
{
    (void)value;
    (void)error;
    invocation->help = true;
    return 0;
}

static int set_version(struct invocation *invocation, const char *value, struct error *error)
{
    (void)value;
    (void)error;
    invocation->version = true;
    return 0;
}

const struct option option_globals[] = {
    {.name = "json", .set = set_json, .doc = "print the daemon's answer as one JSON document"},
    {.name = "socket",
     .kind = OPTION_VALUE,
     .value = "PATH",
     .set = set_socket,
     .complete = COMPLETE_FILE,
     .doc = "moatd's socket (default: $MOAT_SOCKET, else /run/moat/moat.sock)"},
    {.name = "help", .letter = 'h', .set = set_help, .doc = "show this help"},
    {.name = "version", .set = set_version, .doc = "show the version"},
    {0},
};

/* --- what was meant? --- */

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;

    return least < c ? least : c;
}

/* Number of insertions, deletions and substitutions from a to b; SUGGESTION_MAX when one is too
 * long. */
static size_t edit_distance(const char *a, size_t a_length, const char *b)
{
    size_t row[SUGGESTION_MAX + 1];
    size_t b_length = strlen(b);

    if (a_length > SUGGESTION_MAX || b_length > SUGGESTION_MAX)
        return SUGGESTION_MAX;
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t above = row[j];

            row[j] = min3(row[j - 1] + 1, above + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[b_length];
}

struct nearest {
    const char *wanted;
    size_t length;
    const char *name; /* the best so far */
    size_t distance;
};

static void nearest_offer(struct nearest *nearest, const char *name)
{
    size_t distance = edit_distance(nearest->wanted, nearest->length, name);

    /* What was begun but not finished counts as near. */
    if (nearest->length >= 2 && strncmp(nearest->wanted, name, nearest->length) == 0)
        distance = 1;
    if (distance <= 1 + nearest->length / 4 && distance < nearest->distance) {
        nearest->distance = distance;
        nearest->name = name;
    }
}

/* --- options --- */

static const struct option *find_long(const struct option *table, const char *name, size_t length)
{
    for (; table && table->name; table++)
        if (strlen(table->name) == length && memcmp(table->name, name, length) == 0)
            return table;
    return NULL;
}

static const struct option *find_letter(const struct option *table, char letter)
{
    for (; table && table->name; table++)
        if (table->letter == letter)
            return table;
    return NULL;
}

static const struct option *command_options(const struct parser *parser)
{
    const struct invocation *invocation = parser->invocation;

    if (invocation->command)
        return invocation->command->options;
    return invocation->group ? command_group_options(invocation->group) : NULL;
}

/* "moat net create", "moat net" or "moat", for texts. */
static const char *place_text(const struct invocation *invocation, char text[96])
{
    const struct command *command = invocation->command;
    const char *group = command ? command->group : invocation->group;

    snprintf(text, 96, "moat%s%s%s%s", group ? " " : "", group ? group : "", command ? " " : "",
             command ? command->name : "");
    return text;
}

static int refuse_unknown(struct parser *parser, const char *name, size_t length)
{
    struct nearest nearest = {.wanted = name, .length = length, .distance = SUGGESTION_MAX};
    char place[96];

    for (const struct option *o = command_options(parser); o && o->name; o++)
        nearest_offer(&nearest, o->name);
    for (const struct option *o = option_globals; o->name; o++)
        nearest_offer(&nearest, o->name);
    place_text(parser->invocation, place);
    if (nearest.name)
        return option_refuse(parser->error, "%s has no option --%.*s; did you mean --%s?", place,
                             (int)length, name, nearest.name);
    return option_refuse(parser->error, "%s has no option --%.*s; \"%s --help\" lists them", place,
                         (int)length, name, place);
}

/* value NULL: none was given, or the option is a flag. */
static int option_apply(struct parser *parser, const struct option *option, const char *value)
{
    struct invocation *invocation = parser->invocation;
    int r;

    if (option->set)
        r = option->set(invocation, value, parser->error);
    else
        r = value_set(proto_method_get(invocation->command->method)->params, option->field,
                      &invocation->params, value, parser->error);
    if (r < 0)
        error_add_context(parser->error, "--%s", option->name);
    return r;
}

static int refuse_missing(struct parser *parser, const struct option *option)
{
    return option_refuse(parser->error, "--%s needs a value: --%s %s", option->name, option->name,
                         option->value);
}

static int take_long(struct parser *parser, const char *text)
{
    size_t length = strcspn(text, "=");
    const char *value = text[length] ? text + length + 1 : NULL;
    const struct option *option = find_long(command_options(parser), text, length);

    if (!option)
        option = find_long(option_globals, text, length);
    if (!option)
        return refuse_unknown(parser, text, length);
    if (option->kind == OPTION_FLAG && value)
        return option_refuse(parser->error, "--%s takes no value", option->name);
    if (option->kind == OPTION_VALUE && !value) {
        if (parser->next == parser->end)
            return refuse_missing(parser, option);
        value = *parser->next++;
    }
    return option_apply(parser, option, value);
}

static int refuse_letter(struct parser *parser, char letter, const char *bundle)
{
    char place[96];

    place_text(parser->invocation, place);
    if (bundle[1] == '\0')
        return option_refuse(parser->error, "%s has no option -%c; \"%s --help\" lists them", place,
                             letter, place);
    return option_refuse(parser->error,
                         "%s has no option -%c, as in \"-%.40s\"; \"%s --help\" lists them", place,
                         letter, bundle, place);
}

/* -q, -qv, -nNAME, -n NAME */
static int take_bundle(struct parser *parser, const char *bundle)
{
    const char *letters = bundle;

    while (*letters) {
        const struct option *option = find_letter(command_options(parser), *letters);
        const char *value = NULL;
        int r;

        if (!option)
            option = find_letter(option_globals, *letters);
        if (!option)
            return refuse_letter(parser, *letters, bundle);
        letters++;
        if (option->kind == OPTION_VALUE) {
            value = letters;
            letters = "";
            if (!*value && parser->next == parser->end)
                return refuse_missing(parser, option);
            if (!*value)
                value = *parser->next++;
        }
        r = option_apply(parser, option, value);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- words --- */

static int refuse_command(struct parser *parser, const char *word)
{
    const char *group = parser->invocation->group;
    struct nearest nearest = {.wanted = word, .length = strlen(word), .distance = SUGGESTION_MAX};
    const struct command *command;

    for (size_t i = 0; (command = command_get(i)); i++) {
        if (group && command->group && strcmp(group, command->group) == 0)
            nearest_offer(&nearest, command->name);
        if (!group)
            nearest_offer(&nearest, command->group ? command->group : command->name);
    }
    if (nearest.name)
        return option_refuse(parser->error,
                             "there is no command \"%.40s%s%.40s\"; did you mean \"%s%s%s\"?",
                             group ? group : "", group ? " " : "", word, group ? group : "",
                             group ? " " : "", nearest.name);
    return option_refuse(
        parser->error, "there is no command \"%.40s%s%.40s\"; \"moat%s%s --help\" lists them",
        group ? group : "", group ? " " : "", word, group ? " " : "", group ? group : "");
}

static int take_command_name(struct parser *parser, const char *word)
{
    struct invocation *invocation = parser->invocation;
    const struct command *command = command_find(invocation->group, word);

    if (command) {
        invocation_set_command(invocation, command);
        return 0;
    }
    if (!invocation->group && command_group_exists(word)) {
        invocation->group = word;
        return 0;
    }
    if (!invocation->group && strcmp(word, "help") == 0) {
        invocation->help = true;
        return 0;
    }
    return refuse_command(parser, word);
}

/* The row for the n-th positional argument; the last row repeats where it may. */
static const struct positional *positional_find(const struct command *command, size_t n)
{
    const struct positional *row = command->positionals;

    for (; row && row->name; row++, n--)
        if (n == 0 || row->repeat)
            return row;
    return NULL;
}

static int take_positional(struct parser *parser, const char *word)
{
    struct invocation *invocation = parser->invocation;
    const struct positional *row = positional_find(invocation->command, parser->n_positionals);
    char place[96];
    int r;

    if (!row)
        return option_refuse(parser->error, "\"%.80s\" is one argument too many; see \"%s --help\"",
                             word, place_text(invocation, place));
    parser->n_positionals++;
    if (row->set)
        r = row->set(invocation, word, parser->error);
    else
        r = value_set(proto_method_get(invocation->command->method)->params, row->field,
                      &invocation->params, word, parser->error);
    if (r < 0)
        error_add_context(parser->error, "%s", row->name);
    return r;
}

static bool begins_command(const struct parser *parser)
{
    const struct command *command = parser->invocation->command;

    return command && command->takes_command && !positional_find(command, parser->n_positionals);
}

static int take_word(struct parser *parser, char *word)
{
    if (!parser->invocation->command)
        return take_command_name(parser, word);
    return take_positional(parser, word);
}

/* --- the whole --- */

static int check_complete(struct parser *parser)
{
    struct invocation *invocation = parser->invocation;
    const struct command *command = invocation->command;
    const struct positional *row;
    char place[96];

    place_text(invocation, place);
    if (!command)
        return option_refuse(parser->error, "which command? \"%s --help\" lists them", place);
    row = positional_find(command, parser->n_positionals);
    if (row && !row->optional && parser->n_positionals <= (size_t)(row - command->positionals))
        return option_refuse(parser->error, "%s needs %s; see \"%s --help\"", place, row->name,
                             place);
    if (command->takes_command && !invocation->command_line)
        return option_refuse(parser->error, "%s needs a COMMAND to run; see \"%s --help\"", place,
                             place);
    return 0;
}

static int take_argument(struct parser *parser, char *argument)
{
    if (!parser->only_words && strcmp(argument, "--") == 0) {
        parser->only_words = true;
        return 0;
    }
    if (!parser->only_words && strncmp(argument, "--", 2) == 0)
        return take_long(parser, argument + 2);
    if (!parser->only_words && argument[0] == '-' && argument[1] != '\0')
        return take_bundle(parser, argument + 1);
    return take_word(parser, argument);
}

int option_parse(int argc, char **argv, struct invocation *invocation, struct error *error)
{
    struct parser parser = {
        .invocation = invocation, .error = error, .next = argv + (argc > 0), .end = argv + argc};

    while (parser.next < parser.end) {
        char *argument = *parser.next;
        bool is_option = argument[0] == '-' && argument[1] != '\0' && !parser.only_words;
        int r;

        if (!is_option && begins_command(&parser)) {
            invocation->command_line = parser.next;
            break;
        }
        parser.next++;
        r = take_argument(&parser, argument);
        if (r < 0)
            return r;
        /* "moat help net create" goes on to the words that name the command. */
        if (invocation->version || (invocation->help && is_option))
            return 0;
    }
    return invocation->help ? 0 : check_complete(&parser);
}
