/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat completion: scripts for shells, from the tables. All three work alike: a table of
 * "COMMAND|word" pairs is written into the script; names of guests and networks are asked of the
 * daemon while completing. */
#include <stdio.h>
#include <string.h>

#include "command.h"

static int set_shell(struct invocation *invocation, const char *value, struct error *error);

static const char *command_path(const struct command *command, char path[64])
{
    snprintf(path, 64, "%s%s%s", command->group ? command->group : "", command->group ? " " : "",
             command->name);
    return path;
}

/* --- what can stand where: shared by the shells --- */

/* Shell words that print the values there are; "" when there are none to offer. */
static const char *value_source(enum completion complete, const char *words)
{
    if (words)
        return words;
    switch (complete) {
    case COMPLETE_NETWORK:
        return "@networks";
    case COMPLETE_GUEST:
        return "@guests";
    case COMPLETE_FILE:
        return "@files";
    case COMPLETE_DIRECTORY:
        return "@directories";
    default:
        return "";
    }
}

/* Calls `write` for each option that a command has, the global ones included. */
static void each_option(const struct command *command,
                        void (*write)(const char *path, const struct option *option))
{
    const struct option *const tables[] = {command->options, option_globals};
    char path[64];

    command_path(command, path);
    for (size_t i = 0; i < 2; i++)
        for (const struct option *option = tables[i]; option && option->name; option++)
            write(path, option);
}

/* The same for what may stand behind a group's name. */
static void each_group_option(const char *group,
                              void (*write)(const char *path, const struct option *option))
{
    const struct option *const tables[] = {command_group_options(group), option_globals};

    for (size_t i = 0; i < 2; i++)
        for (const struct option *option = tables[i]; option && option->name; option++)
            write(group, option);
}

static bool is_first_of_group(size_t index)
{
    const struct command *command = command_get(index);
    const struct command *before = index > 0 ? command_get(index - 1) : NULL;

    return command->group &&
           !(before && before->group && strcmp(before->group, command->group) == 0);
}

/* Calls `write` for each name of the options behind a group's name that are followed by a value. */
static void each_group_value(void (*write)(const char *group, const char *name))
{
    const struct command *command;

    for (size_t i = 0; (command = command_get(i)); i++) {
        const struct option *option =
            is_first_of_group(i) ? command_group_options(command->group) : NULL;

        for (; option && option->name; option++) {
            char name[64];

            if (option->kind != OPTION_VALUE)
                continue;
            snprintf(name, sizeof(name), "--%s", option->name);
            write(command->group, name);
            snprintf(name, sizeof(name), "-%c", option->letter);
            if (option->letter)
                write(command->group, name);
        }
    }
}

/* --- bash --- */

static void bash_option(const char *path, const struct option *option)
{
    const char *source = value_source(option->complete, option->words);

    printf("    ['%s|--%s']='%s%s'\n", path, option->name, option->kind == OPTION_VALUE ? "=" : "",
           source);
    if (option->letter)
        printf("    ['%s|-%c']='%s%s'\n", path, option->letter,
               option->kind == OPTION_VALUE ? "=" : "", source);
}

static void bash_tables(void)
{
    const struct command *command;
    char path[64];

    puts("declare -gA _moat_options=(");
    for (size_t i = 0; (command = command_get(i)); i++) {
        if (is_first_of_group(i))
            each_group_option(command->group, bash_option);
        each_option(command, bash_option);
    }
    puts(")\ndeclare -gA _moat_arguments=(");
    for (size_t i = 0; (command = command_get(i)); i++) {
        printf("    ['%s']='", command_path(command, path));
        for (const struct positional *row = command->positionals; row && row->name; row++) {
            const char *source = value_source(row->complete, row->words);

            printf("%s%s%s", row == command->positionals ? "" : ";", source,
                   row->repeat ? "*" : "");
        }
        printf("%s'\n",
               command->takes_command ? (command->positionals ? ";@command" : "@command") : "");
    }
    puts(")");
}

static const char bash_text[] =
    "_moat_values() {\n"
    "    case $1 in\n"
    "    @networks) COMPREPLY=($(compgen -W \"$(moat net ls -q 2>/dev/null)\" -- \"$2\")) ;;\n"
    "    @guests) COMPREPLY=($(compgen -W \"$(moat ps -q 2>/dev/null)\" -- \"$2\")) ;;\n"
    "    @files) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$2\")) ;;\n"
    "    @directories) compopt -o filenames; COMPREPLY=($(compgen -d -- \"$2\")) ;;\n"
    "    *) COMPREPLY=($(compgen -W \"$1\" -- \"$2\")) ;;\n"
    "    esac\n"
    "}\n"
    "\n"
    "# The words before the cursor: which command is it, and how many arguments has it got?\n"
    "_moat() {\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} word key value command='' group='' expect='' i n=0 "
    "names=''\n"
    "    COMPREPLY=()\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        word=${COMP_WORDS[i]}\n"
    "        if [ \"$word\" = = ]; then continue; fi\n"
    "        if [ -n \"$expect\" ]; then expect=''; continue; fi\n"
    "        case $word in\n"
    "        --) n=99 ;;\n"
    "        -*)\n"
    "            value=${_moat_options[\"${command:-${group:-status}}|$word\"]-}\n"
    "            if [ \"${value:0:1}\" = = ] && [ \"${COMP_WORDS[i + 1]-}\" != = ]; then "
    "expect=$value; fi\n"
    "            if [ \"${COMP_WORDS[i + 1]-}\" = = ]; then expect=$value; fi ;;\n"
    "        *)\n"
    "            if [ -n \"$command\" ]; then\n"
    "                value=${_moat_arguments[$command]}\n"
    "                if [ \"$value\" = @command ]; then n=99; break; fi\n"
    "                n=$((n + 1))\n"
    "                case $value in *';@command') [ $n -lt 2 ] || { n=99; break; } ;; esac\n"
    "            elif [ -n \"${_moat_arguments[\"${group:+$group }$word\"]+x}\" ]; then\n"
    "                command=\"${group:+$group }$word\"\n"
    "            else\n"
    "                group=$word\n"
    "            fi ;;\n"
    "        esac\n"
    "    done\n"
    "    if [ \"$cur\" = = ]; then cur=''; fi\n"
    "    if [ $n = 99 ]; then\n"
    "        compopt -o default; COMPREPLY=($(compgen -c -- \"$cur\")); return\n"
    "    fi\n"
    "    if [ -n \"$expect\" ]; then _moat_values \"${expect#=}\" \"$cur\"; return; fi\n"
    "    if [ \"${cur:0:1}\" = - ]; then\n"
    "        for key in \"${!_moat_options[@]}\"; do\n"
    "            if [ \"${key%|*}\" = \"${command:-${group:-status}}\" ]; then names+=\" "
    "${key##*|}\"; fi\n"
    "        done\n"
    "        COMPREPLY=($(compgen -W \"$names\" -- \"$cur\")); return\n"
    "    fi\n"
    "    if [ -z \"$command\" ]; then\n"
    "        for key in \"${!_moat_arguments[@]}\"; do\n"
    "            if [ -z \"$group\" ]; then names+=\" ${key%% *}\"\n"
    "            elif [ \"${key%% *}\" = \"$group\" ]; then names+=\" ${key#* }\"; fi\n"
    "        done\n"
    "        COMPREPLY=($(compgen -W \"$names\" -- \"$cur\" | sort -u)); return\n"
    "    fi\n"
    "    value=${_moat_arguments[$command]}\n"
    "    for ((i = 0; i < n; i++)); do\n"
    "        case $value in *';'*) value=${value#*;} ;; *'*') ;; *) value='' ;; esac\n"
    "    done\n"
    "    value=${value%%;*}\n"
    "    if [ \"$value\" = @command ]; then compopt -o default; COMPREPLY=($(compgen -c -- "
    "\"$cur\")); return; fi\n"
    "    if [ -n \"${value%'*'}\" ]; then _moat_values \"${value%'*'}\" \"$cur\"; fi\n"
    "}\n"
    "complete -F _moat moat\n";

static void print_bash(void)
{
    puts("# bash completion for moat; made by \"moat completion bash\".");
    bash_tables();
    fputs(bash_text, stdout);
}

/* --- zsh --- */

/* Single quotes end the word; colons and brackets mean something to _arguments and _describe. */
static void zsh_escape(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (strchr(":[]\\", *text))
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void zsh_action(enum completion complete, const char *words)
{
    const char *source = value_source(complete, words);

    if (words)
        printf("(%s)", words);
    else if (strcmp(source, "@files") == 0)
        fputs("_files", stdout);
    else if (strcmp(source, "@directories") == 0)
        fputs("_files -/", stdout);
    else if (source[0])
        printf("_moat_%s", source + 1);
}

static void zsh_option_name(const struct option *option, const char *name)
{
    printf("            '%s%s%s[", option->repeat ? "*" : "", name,
           option->kind == OPTION_VALUE   ? (name[1] == '-' ? "=" : "+")
           : option->kind == OPTION_MAYBE ? "=-"
                                          : "");
    zsh_escape(option->doc);
    putchar(']');
    if (option->kind != OPTION_FLAG) {
        fputs(option->kind == OPTION_MAYBE ? "::" : ":", stdout);
        zsh_escape(option->value);
        putchar(':');
        zsh_action(option->complete, option->words);
    }
    puts("' \\");
}

static void zsh_option(const char *path, const struct option *option)
{
    char name[64];

    (void)path;
    if (option->letter) {
        snprintf(name, sizeof(name), "-%c", option->letter);
        zsh_option_name(option, name);
    }
    snprintf(name, sizeof(name), "--%s", option->name);
    zsh_option_name(option, name);
}

static void zsh_positional(const struct positional *row)
{
    printf("            '%s:", row->repeat ? "*" : row->optional ? ":" : "");
    zsh_escape(row->name);
    putchar(':');
    zsh_action(row->complete, row->words);
    puts("' \\");
}

static void zsh_command(const struct command *command)
{
    char path[64];

    printf("    '%s')\n        _arguments -s -S \\\n", command_path(command, path));
    each_option(command, zsh_option);
    for (const struct positional *row = command->positionals; row && row->name; row++)
        zsh_positional(row);
    if (command->takes_command)
        puts("            '*::COMMAND: _normal' \\");
    puts("            && return ;;");
}

static void zsh_describe(const char *name, const char *summary)
{
    printf("            '%s:", name);
    zsh_escape(summary);
    puts("'");
}

/* The words that may follow "moat" (group NULL) or "moat GROUP". */
static void zsh_words(const char *group)
{
    const struct command *command;

    printf("    '%s')\n        words_here=(\n", group ? group : "");
    for (size_t i = 0; (command = command_get(i)); i++) {
        if (group && command->group && strcmp(group, command->group) == 0)
            zsh_describe(command->name, command->summary);
        if (!group && !command->group)
            zsh_describe(command->name, command->summary);
        if (!group && is_first_of_group(i))
            zsh_describe(command->group, command_group_summary(command->group));
    }
    puts("        )\n        _describe 'command' words_here && return ;;");
}

static void zsh_value(const char *group, const char *name)
{
    printf("        '%s %s') skip=1; continue ;;\n", group, name);
}

static void print_zsh(void)
{
    const struct command *command;

    puts("#compdef moat\n"
         "# zsh completion for moat; made by \"moat completion zsh\".\n"
         "_moat_networks() { local -a names; names=(${(f)\"$(moat net ls -q 2>/dev/null)\"}); "
         "compadd -a names }\n"
         "_moat_guests() { local -a names; names=(${(f)\"$(moat ps -q 2>/dev/null)\"}); compadd -a "
         "names }\n"
         "\n"
         "_moat() {\n"
         "    local -a words_here\n"
         "    local place='' i skip=0\n"
         "    for ((i = 2; i < CURRENT; i++)); do\n"
         "        if ((skip)); then skip=0; continue; fi\n"
         "        case \"$place ${words[i]}\" in\n"
         "        *' --socket') skip=1; continue ;;");
    each_group_value(zsh_value);
    puts("        *' -'*) continue ;;\n"
         "        esac\n"
         "        place=${place:+$place }${words[i]}\n"
         "        case $place in");
    printf("        ");
    for (size_t i = 0; (command = command_get(i)); i++)
        if (is_first_of_group(i))
            printf("%s%s", i == 0 ? "" : "|", command->group);
    puts(") ;;\n"
         "        *) words=(\"$place\" \"${(@)words[i+1,-1]}\"); ((CURRENT -= i - 1)); break ;;\n"
         "        esac\n"
         "    done\n"
         "    case $place in");
    zsh_words(NULL);
    for (size_t i = 0; (command = command_get(i)); i++) {
        if (is_first_of_group(i))
            zsh_words(command->group);
        zsh_command(command);
    }
    puts("    esac\n    return 1\n}\n\n_moat \"$@\"");
}

/* --- fish --- */

static void fish_quote(const char *text)
{
    putchar('\'');
    for (; *text; text++) {
        if (strchr("'\\", *text))
            putchar('\\');
        putchar(*text);
    }
    putchar('\'');
}

static void fish_values(enum completion complete, const char *words)
{
    const char *source = value_source(complete, words);

    if (words)
        printf(" -xa '%s'", words);
    else if (strcmp(source, "@networks") == 0)
        fputs(" -xa '(moat net ls -q 2>/dev/null)'", stdout);
    else if (strcmp(source, "@guests") == 0)
        fputs(" -xa '(moat ps -q 2>/dev/null)'", stdout);
    else if (strcmp(source, "@directories") == 0)
        fputs(" -xa '(__fish_complete_directories)'", stdout);
    else if (strcmp(source, "@files") == 0)
        fputs(" -rF", stdout);
    else
        fputs(" -x", stdout);
}

static void fish_option(const char *path, const struct option *option)
{
    printf("complete -c moat -n '__moat_is \"%s\"' -l %s", path, option->name);
    if (option->letter)
        printf(" -s %c", option->letter);
    if (option->kind == OPTION_VALUE)
        fish_values(option->complete, option->words);
    fputs(" -d ", stdout);
    fish_quote(option->doc);
    putchar('\n');
}

static void fish_positionals(const struct command *command)
{
    char path[64];

    command_path(command, path);
    for (const struct positional *row = command->positionals; row && row->name; row++) {
        if (!value_source(row->complete, row->words)[0])
            continue;
        printf("complete -c moat -n '__moat_is \"%s\"'", path);
        fish_values(row->complete, row->words);
        putchar('\n');
    }
    if (command->takes_command)
        printf("complete -c moat -n '__moat_is \"%s\"' -xa '(__fish_complete_subcommand)'\n", path);
}

static void fish_word(const char *place, const char *name, const char *summary)
{
    printf("complete -c moat -n '__moat_is \"%s\"' -xa %s -d ", place, name);
    fish_quote(summary);
    putchar('\n');
}

static void fish_value(const char *group, const char *name)
{
    (void)group;
    printf(" %s", name);
}

static void print_fish(void)
{
    const struct command *command;

    puts("# fish completion for moat; made by \"moat completion fish\".\n"
         "function __moat_is\n"
         "    set -l place\n"
         "    set -l before\n"
         "    for word in (commandline -opc)[2..-1]\n"
         "        set -l last $before\n"
         "        set before $word\n"
         "        string match -q -- '-*' $word; and continue");
    printf("        contains -- \"$last\" --socket");
    each_group_value(fish_value);
    printf("; and continue\n        contains -- \"$place\" ''");
    for (size_t i = 0; (command = command_get(i)); i++)
        if (is_first_of_group(i))
            printf(" %s", command->group);
    puts("; or break\n"
         "        set place (string trim -- \"$place $word\")\n"
         "    end\n"
         "    test \"$place\" = \"$argv[1]\"\n"
         "end\n"
         "complete -c moat -f");
    for (size_t i = 0; (command = command_get(i)); i++) {
        if (is_first_of_group(i)) {
            fish_word("", command->group, command_group_summary(command->group));
            each_group_option(command->group, fish_option);
        }
        fish_word(command->group ? command->group : "", command->name, command->summary);
        each_option(command, fish_option);
        fish_positionals(command);
    }
}

/* --- the command --- */

static const struct {
    const char *name;
    void (*print)(void);
} shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};

static int set_shell(struct invocation *invocation, const char *value, struct error *error)
{
    for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
        if (strcmp(shells[i].name, value) == 0)
            return strings_add(&invocation->words, value);
    return option_refuse(error, "\"%.40s\" is not a shell that moat knows: bash, zsh or fish",
                         value);
}

static int print_completion(struct invocation *invocation)
{
    for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
        if (strcmp(shells[i].name, invocation->words.items[0]) == 0)
            shells[i].print();
    return EXIT_DONE;
}

static const struct positional positionals[] = {
    {.name = "SHELL", .set = set_shell, .words = "bash zsh fish"},
    {0},
};

const struct command completion_commands[] = {
    {.name = "completion",
     .summary = "print a shell's completion script",
     .positionals = positionals,
     .method = METHOD_COUNT_,
     .run = print_completion,
     .text = "For bash: eval \"$(moat completion bash)\". SHELL is bash, zsh or fish."},
    {0},
};
