/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --help, from the tables. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "command.h"

#define OPTION_COLUMN 30 /* where the descriptions begin */
#define LINE_WIDTH 96

void command_name_write(struct text *text, const struct command *command)
{
    text_append(text, "moat %s%s%s", command->group ? command->group : "",
                command->group ? " " : "", command->name);
}

void command_usage_write(struct text *text, const struct command *command)
{
    command_name_write(text, command);
    for (const struct positional *row = command->positionals; row && row->name; row++)
        text_append(text, row->optional ? " [%s%s]" : " %s%s", row->name, row->repeat ? "..." : "");
    if (command->options)
        text_append(text, " [OPTION...]");
    if (command->takes_command)
        text_append(text, " [--] COMMAND [ARG...]");
}

/* The text from the column of descriptions on, which is where the line stands; further lines begin
 * there too. */
static void wrapped_write(struct text *text, const char *words)
{
    size_t column = OPTION_COLUMN;

    while (*words) {
        size_t length = strcspn(words, " ");

        if (column > OPTION_COLUMN && column + 1 + length > LINE_WIDTH) {
            text_append(text, "\n%*s", OPTION_COLUMN, "");
            column = OPTION_COLUMN;
        } else if (column > OPTION_COLUMN) {
            text_append(text, " ");
            column++;
        }
        text_append_n(text, words, length);
        column += length;
        words += length + (words[length] == ' ');
    }
    text_append(text, "\n");
}

static void option_names_write(struct text *text, const struct option *option)
{
    if (option->letter)
        text_append(text, "  -%c, --%s", option->letter, option->name);
    else
        text_append(text, "      --%s", option->name);
    if (option->kind == OPTION_VALUE)
        text_append(text, " %s", option->value);
    else if (option->kind == OPTION_MAYBE)
        text_append(text, "[=%s]", option->value);
}

static void option_write(struct text *text, const struct option *option)
{
    struct text names = {0};
    struct text doc = {0};

    option_names_write(&names, option);
    text_append(&doc, "%s%s", option->doc, option->repeat ? " (may be repeated)" : "");
    if (!names.failed && !doc.failed) {
        bool fits = names.length + 2 <= OPTION_COLUMN;

        text_append(text, "%s%s%*s", names.data, fits ? "" : "\n",
                    (int)(fits ? OPTION_COLUMN - names.length : OPTION_COLUMN), "");
        wrapped_write(text, doc.data);
    }
    text_deinit(&names);
    text_deinit(&doc);
}

static void options_write(struct text *text, const char *title, const struct option *table)
{
    if (!table || !table->name)
        return;
    text_append(text, "\n%s:\n", title);
    for (; table->name; table++)
        option_write(text, table);
}

static void one_command_write(struct text *text, const struct command *command)
{
    text_append(text, "Usage: ");
    command_usage_write(text, command);
    text_append(text, "\n\n%c%s.\n", toupper((unsigned char)command->summary[0]),
                command->summary + 1);
    if (command->text)
        text_append(text, "\n%s\n", command->text);
    options_write(text, "Options", command->options);
    options_write(text, "Every command", option_globals);
}

static void summary_write(struct text *text, const char *name, const char *summary)
{
    text_append(text, "  %-14s%s\n", name, summary);
}

static void group_write(struct text *text, const char *group)
{
    const struct command *command;

    text_append(text, "Usage: moat %s COMMAND\n\nCommands:\n", group);
    for (size_t i = 0; (command = command_get(i)); i++)
        if (command->group && strcmp(command->group, group) == 0)
            summary_write(text, command->name, command->summary);
    options_write(text, "Options before or behind COMMAND", command_group_options(group));
    text_append(text, "\n\"moat %s COMMAND --help\" says more.\n", group);
}

static void overview_write(struct text *text)
{
    const char *last_group = "";
    const struct command *command;

    text_append(text, "Usage: moat COMMAND\n\n"
                      "Networks, names, ports and policies for sandboxes, containers and VMs.\n\n"
                      "Commands:\n");
    for (size_t i = 0; (command = command_get(i)); i++) {
        if (!command->group)
            summary_write(text, command->name, command->summary);
        else if (strcmp(command->group, last_group) != 0)
            summary_write(text, command->group, command_group_summary(command->group));
        last_group = command->group ? command->group : "";
    }
    options_write(text, "Every command", option_globals);
    text_append(text, "\n\"moat COMMAND --help\" says more; so does moat(1).\n");
}

void command_help_write(struct text *text, const char *group, const struct command *command)
{
    if (command)
        one_command_write(text, command);
    else if (group)
        group_write(text, group);
    else
        overview_write(text);
}
