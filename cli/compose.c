/* SPDX-License-Identifier: GPL-2.0-or-later */
/* moat compose up, down, ps
 *
 * What belongs to a project says its label in the daemon; there is no other memory. `up` compares
 * the file with that, by a number that stands for all settings of a network or a service: what has
 * another one is taken down and made anew, what is missing is made, the rest is left alone. */
#include "compose.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compose_state.h"
#include "compose_up.h"
#include "compose_words.h"
#include "remote.h"
#include "show.h"
#include "table.h"

#define TIMEOUT_DEFAULT_S 10

/* --- options --- */

static int set_file(struct invocation *invocation, const char *value, struct error *error)
{
    if (value[0] == '\0')
        return option_refuse(error, "the path is empty");
    invocation->compose.file = value;
    return 0;
}

static int set_project(struct invocation *invocation, const char *value, struct error *error)
{
    char name[NAME_MAX_LENGTH + 1];

    if (compose_name(NULL, value, name) < 0)
        return option_refuse(error,
                             "\"%.80s\" is not a project's name: 1 to %d letters, digits, "
                             "'-' and '_', with a letter or digit at both ends",
                             value, NAME_MAX_LENGTH);
    invocation->compose.project = value;
    return 0;
}

static int set_detach(struct invocation *invocation, const char *value, struct error *error)
{
    (void)value;
    (void)error;
    invocation->compose.detach = true;
    return 0;
}

static int set_remove_orphans(struct invocation *invocation, const char *value, struct error *error)
{
    (void)value;
    (void)error;
    invocation->compose.remove_orphans = true;
    return 0;
}

static int set_timeout(struct invocation *invocation, const char *value, struct error *error)
{
    size_t digits = strspn(value, "0123456789");
    unsigned long seconds = strtoul(value, NULL, 10);

    if (digits == 0 || digits > 9 || value[digits] || seconds > COMPOSE_TIMEOUT_MAX_S)
        return option_refuse(error, "\"%.40s\" is not a whole number of seconds from 0 to %d",
                             value, COMPOSE_TIMEOUT_MAX_S);
    invocation->compose.has_timeout = true;
    invocation->compose.timeout_s = (unsigned)seconds;
    return 0;
}

static unsigned timeout_of(const struct invocation *invocation)
{
    return invocation->compose.has_timeout ? invocation->compose.timeout_s : TIMEOUT_DEFAULT_S;
}

#define FILE_OPTION                                                                            \
    {                                                                                          \
        .name = "file", .letter = 'f', .kind = OPTION_VALUE, .value = "FILE", .set = set_file, \
        .complete = COMPLETE_FILE,                                                             \
        .doc = "the Compose file (default: compose.yaml, compose.yml, "                        \
               "docker-compose.yaml or docker-compose.yml)"                                    \
    }
#define PROJECT_OPTION                                                                \
    {                                                                                 \
        .name = "project-name", .letter = 'p', .kind = OPTION_VALUE, .value = "NAME", \
        .set = set_project,                                                           \
        .doc = "the project (default: name: in the file, or the name of its folder)"  \
    }
#define TIMEOUT_OPTION                                                              \
    {                                                                               \
        .name = "timeout", .letter = 't', .kind = OPTION_VALUE, .value = "SECONDS", \
        .set = set_timeout,                                                         \
        .doc = "how long a service has between SIGTERM and SIGKILL (default: 10)"   \
    }

/* --- the file --- */

static int load(const struct invocation *invocation, struct compose *ret_compose)
{
    const struct compose_options *options = &invocation->compose;
    const char *path = options->file;
    struct error error = ERROR_INIT;
    int r = path ? 0 : compose_file_find(&path, &error);

    if (r == 0)
        r = compose_load(path, options->project, ret_compose, &error);
    return r < 0 ? invocation_fail(EXIT_REFUSED, &error) : EXIT_DONE;
}

/* down and ps can do with the project's name alone. */
static int load_if_given(const struct invocation *invocation, struct compose *ret_compose)
{
    struct compose compose = {0};
    struct error ignored = ERROR_INIT;
    const char *path = NULL;

    if (!invocation->compose.project || invocation->compose.file ||
        compose_file_find(&path, &ignored) == 0)
        return load(invocation, ret_compose);
    (void)compose_name(NULL, invocation->compose.project, compose.project);
    *ret_compose = compose;
    return EXIT_DONE;
}

/* --- up: what differs --- */

struct plan {
    struct invocation *invocation;
    const struct compose *compose;
    struct compose_state state;
    bool *running; /* for each service: it runs already, as the file has it */
    bool *there;   /* for each network: it is there already, as the file has it */
    bool *made;    /* for each network: made just now */
};

static int refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int refuse(const char *format, ...)
{
    struct error error = ERROR_INIT;
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    error_set(&error, 0, "%s", text);
    return invocation_fail(EXIT_REFUSED, &error);
}

static int compare_network(struct plan *plan, size_t index)
{
    const struct compose_network *wanted = &plan->compose->networks[index];
    const struct network *found = compose_state_network(&plan->state, wanted->name);

    if (wanted->external) {
        plan->there[index] = true;
        return found ? EXIT_DONE
                     : refuse("network %s: there is no network \"%s\", and the file says that it "
                              "is external; make it by: moat net create %s",
                              wanted->key, wanted->name, wanted->name);
    }
    if (found && !compose_labelled(&found->labels, COMPOSE_LABEL_PROJECT, plan->compose->project))
        return refuse("network %s: there is a network \"%s\" that is not this project's; give "
                      "another name:, or say external: true",
                      wanted->key, wanted->name);
    plan->there[index] =
        found && compose_labelled(&found->labels, COMPOSE_LABEL_CONFIG, wanted->config);
    return EXIT_DONE;
}

static int compare_service(struct plan *plan, size_t index)
{
    const struct compose_service *wanted = &plan->compose->services[index];
    const struct guest *found = compose_state_guest(&plan->state, wanted->attach.name);

    if (found && !compose_labelled(&found->labels, COMPOSE_LABEL_PROJECT, plan->compose->project))
        return refuse("service %s: there is a guest \"%s\" that is not this project's; detach it, "
                      "or give another container_name:",
                      wanted->key, wanted->attach.name);
    plan->running[index] =
        found && compose_labelled(&found->labels, COMPOSE_LABEL_CONFIG, wanted->config);
    return EXIT_DONE;
}

static int compare(struct plan *plan)
{
    int code = EXIT_DONE;

    for (size_t i = 0; code == EXIT_DONE && i < plan->compose->n_networks; i++)
        code = compare_network(plan, i);
    for (size_t i = 0; code == EXIT_DONE && i < plan->compose->n_services; i++)
        code = compare_service(plan, i);
    return code;
}

/* --- up and down: taking away --- */

/* The depth of what the file does not have is above all others: it goes first. */
static size_t depth_of(const struct compose *compose, const struct guest *guest)
{
    for (size_t i = 0; i < compose->n_services; i++)
        if (strcmp(compose->services[i].attach.name, guest->name) == 0)
            return compose->services[i].depth;
    return compose->n_services;
}

/* Stops the guests of the project for which `wanted` is true, dependents before what they depend
 * on. */
static int stop_guests(struct plan *plan,
                       bool (*wanted)(const struct plan *plan, const struct guest *guest))
{
    _cleanup_free_ const struct guest **round =
        calloc(plan->state.n_guests + 1, sizeof(struct guest *));
    int code = EXIT_DONE;

    if (!round)
        return refuse("out of memory");
    for (size_t depth = plan->compose->n_services + 1; code == EXIT_DONE && depth-- > 0;) {
        size_t count = 0;

        for (size_t i = 0; i < plan->state.n_guests; i++) {
            const struct guest *guest = &plan->state.guests[i];

            if (compose_labelled(&guest->labels, COMPOSE_LABEL_PROJECT, plan->compose->project) &&
                depth_of(plan->compose, guest) == depth && wanted(plan, guest))
                round[count++] = guest;
        }
        if (count > 0)
            code =
                compose_guests_stop(plan->invocation, round, count, timeout_of(plan->invocation));
        for (size_t i = 0; code == EXIT_DONE && !plan->invocation->json && i < count; i++)
            printf("service %s stopped\n", labels_find(&round[i]->labels, COMPOSE_LABEL_SERVICE));
    }
    return code;
}

static const struct compose_service *service_of(const struct plan *plan, const struct guest *guest)
{
    for (size_t i = 0; i < plan->compose->n_services; i++)
        if (strcmp(plan->compose->services[i].attach.name, guest->name) == 0)
            return &plan->compose->services[i];
    return NULL;
}

static bool is_outdated(const struct plan *plan, const struct guest *guest)
{
    const struct compose_service *service = service_of(plan, guest);

    if (!service)
        return plan->invocation->compose.remove_orphans;
    return !plan->running[service - plan->compose->services];
}

static bool is_any(const struct plan *plan, const struct guest *guest)
{
    (void)plan;
    (void)guest;
    return true;
}

static int remove_network(struct plan *plan, const struct network *network)
{
    const char *key = labels_find(&network->labels, COMPOSE_LABEL_NETWORK);
    int code = compose_network_remove(plan->invocation, network->name);

    if (code == EXIT_DONE && !plan->invocation->json)
        printf("network %s removed\n", key ? key : network->name);
    return code;
}

/* Networks whose settings the file has otherwise. */
static int remove_outdated_networks(struct plan *plan)
{
    int code = EXIT_DONE;

    for (size_t i = 0; code == EXIT_DONE && i < plan->compose->n_networks; i++) {
        const struct network *found =
            compose_state_network(&plan->state, plan->compose->networks[i].name);

        if (found && !plan->there[i])
            code = remove_network(plan, found);
    }
    return code;
}

/* What is in the project but not in the file: told, or taken away. */
static int handle_orphan_networks(struct plan *plan)
{
    int code = EXIT_DONE;

    for (size_t i = 0; code == EXIT_DONE && i < plan->state.n_networks; i++) {
        const struct network *network = &plan->state.networks[i];
        bool known = false;

        for (size_t j = 0; j < plan->compose->n_networks; j++)
            known |= strcmp(plan->compose->networks[j].name, network->name) == 0;
        if (!known && plan->invocation->compose.remove_orphans &&
            compose_labelled(&network->labels, COMPOSE_LABEL_PROJECT, plan->compose->project))
            code = remove_network(plan, network);
    }
    return code;
}

static void tell_orphans(const struct plan *plan)
{
    for (size_t i = 0; i < plan->state.n_guests; i++) {
        const struct guest *guest = &plan->state.guests[i];

        if (compose_labelled(&guest->labels, COMPOSE_LABEL_PROJECT, plan->compose->project) &&
            !service_of(plan, guest) && !plan->invocation->compose.remove_orphans)
            printf(
                "service %s is not in the file any more, and goes on; --remove-orphans ends it\n",
                labels_find(&guest->labels, COMPOSE_LABEL_SERVICE));
    }
}

/* --- up: making --- */

static bool is_used(const struct compose *compose, const struct compose_network *network)
{
    for (size_t i = 0; i < compose->n_services; i++)
        for (size_t j = 0; j < compose->services[i].attach.n_networks; j++)
            if (strcmp(compose->services[i].attach.networks[j].name, network->name) == 0)
                return true;
    return false;
}

/* Networks that no service is on are not made, as people know it. */
static int make_networks(struct plan *plan)
{
    int code = EXIT_DONE;

    for (size_t i = 0; code == EXIT_DONE && i < plan->compose->n_networks; i++) {
        const struct compose_network *network = &plan->compose->networks[i];

        if (plan->there[i] || !is_used(plan->compose, network))
            continue;
        code = compose_network_create(plan->invocation, network);
        plan->made[i] = code == EXIT_DONE;
        if (plan->made[i])
            printf("network %s created\n", network->key);
    }
    return code;
}

static void remove_made(struct plan *plan)
{
    for (size_t i = plan->compose->n_networks; i-- > 0;)
        if (plan->made[i])
            (void)compose_network_remove(plan->invocation, plan->compose->networks[i].name);
}

static int change(struct plan *plan)
{
    int code = stop_guests(plan, is_outdated);

    if (code == EXIT_DONE)
        code = remove_outdated_networks(plan);
    if (code == EXIT_DONE)
        code = handle_orphan_networks(plan);
    if (code == EXIT_DONE)
        tell_orphans(plan);
    return code == EXIT_DONE ? make_networks(plan) : code;
}

static int bring_up(struct plan *plan)
{
    const struct compose_up up = {.invocation = plan->invocation,
                                  .compose = plan->compose,
                                  .running = plan->running,
                                  .detach = plan->invocation->compose.detach,
                                  .timeout_s = timeout_of(plan->invocation)};
    int code = compare(plan);
    bool started = false;

    if (code != EXIT_DONE)
        return code;
    code = change(plan);
    if (code == EXIT_DONE)
        code = compose_up_run(&up, &started);
    if (!started)
        remove_made(plan);
    return code;
}

static int prepare(struct plan *plan)
{
    int code = invocation_connect(plan->invocation);

    if (code == EXIT_DONE)
        code = compose_state_load(plan->invocation, &plan->state);
    if (code != EXIT_DONE)
        return code;
    plan->running = calloc(plan->compose->n_services + 1, sizeof(bool));
    plan->there = calloc(plan->compose->n_networks + 1, sizeof(bool));
    plan->made = calloc(plan->compose->n_networks + 1, sizeof(bool));
    return plan->running && plan->there && plan->made ? EXIT_DONE : refuse("out of memory");
}

static void plan_deinit(struct plan *plan)
{
    compose_state_deinit(&plan->state);
    free(plan->running);
    free(plan->there);
    free(plan->made);
}

static int with_plan(struct invocation *invocation,
                     int (*load_file)(const struct invocation *invocation, struct compose *compose),
                     int (*act)(struct plan *plan))
{
    struct compose compose = {0};
    struct plan plan = {.invocation = invocation, .compose = &compose};
    int code = load_file(invocation, &compose);

    if (code == EXIT_DONE)
        code = prepare(&plan);
    if (code == EXIT_DONE)
        code = act(&plan);
    plan_deinit(&plan);
    compose_deinit(&compose);
    return code;
}

static int compose_up(struct invocation *invocation)
{
    return with_plan(invocation, load, bring_up);
}

/* --- down --- */

static int bring_down(struct plan *plan)
{
    int worst = stop_guests(plan, is_any);

    for (size_t i = 0; worst == EXIT_DONE && i < plan->state.n_networks; i++) {
        const struct network *network = &plan->state.networks[i];

        if (compose_labelled(&network->labels, COMPOSE_LABEL_PROJECT, plan->compose->project))
            worst = remove_network(plan, network);
    }
    if (worst == EXIT_DONE && plan->invocation->json)
        puts("{}");
    return worst;
}

static int compose_down(struct invocation *invocation)
{
    return with_plan(invocation, load_if_given, bring_down);
}

/* --- ps --- */

static void add_row(struct table *table, const char *key, const char *name,
                    const struct guest *guest)
{
    struct text addresses = {0};
    struct text ports = {0};

    for (size_t i = 0; guest && i < guest->n_endpoints; i++) {
        char address[IP_TEXT_MAX];

        if (ip_is_set(&guest->endpoints[i].ip))
            show_append(&addresses, ip_format(&guest->endpoints[i].ip, address));
        if (ip_is_set(&guest->endpoints[i].ip6))
            show_append(&addresses, ip_format(&guest->endpoints[i].ip6, address));
    }
    for (size_t i = 0; guest && i < guest->n_ports; i++) {
        char port[PORT_TEXT_MAX];

        show_append(&ports, port_format(&guest->ports[i], port));
    }
    table_add(table, key, name, guest ? "running" : "not running", show_text(&addresses),
              show_text(&ports));
    text_deinit(&addresses);
    text_deinit(&ports);
}

static bool is_of_project(const struct plan *plan, const struct guest *guest)
{
    return compose_labelled(&guest->labels, COMPOSE_LABEL_PROJECT, plan->compose->project);
}

/* The services of the file, and after them what else runs of the project. */
static int print_services(const struct plan *plan)
{
    struct table table;

    table_init(&table, 5, "SERVICE", "GUEST", "STATE", "ADDRESSES", "PORTS");
    for (size_t i = 0; i < plan->compose->n_services; i++) {
        const struct compose_service *service = &plan->compose->services[i];
        const struct guest *guest = compose_state_guest(&plan->state, service->attach.name);

        add_row(&table, service->key, service->attach.name,
                guest && is_of_project(plan, guest) ? guest : NULL);
    }
    for (size_t i = 0; i < plan->state.n_guests; i++) {
        const struct guest *guest = &plan->state.guests[i];

        if (is_of_project(plan, guest) && !service_of(plan, guest))
            add_row(&table, labels_find(&guest->labels, COMPOSE_LABEL_SERVICE), guest->name, guest);
    }
    (void)table_print(&table);
    table_deinit(&table);
    return EXIT_DONE;
}

/* The guests of the project, as guest.get tells them. */
static int print_guests(struct plan *plan)
{
    struct invocation *invocation = plan->invocation;

    invocation->params = (union params){0};
    for (size_t i = 0; i < plan->state.n_guests; i++)
        if (is_of_project(plan, &plan->state.guests[i]) &&
            strings_add(&invocation->words, plan->state.guests[i].name) < 0)
            return refuse("out of memory");
    return show_inspect(invocation);
}

static int print(struct plan *plan)
{
    return plan->invocation->json ? print_guests(plan) : print_services(plan);
}

static int compose_ps(struct invocation *invocation)
{
    return with_plan(invocation, load_if_given, print);
}

const struct option compose_group_options[] = {FILE_OPTION, PROJECT_OPTION, {0}};

static const struct option up_options[] = {
    FILE_OPTION,
    PROJECT_OPTION,
    {.name = "detach",
     .letter = 'd',
     .set = set_detach,
     .doc = "leave the services running, and return once they are started"},
    {.name = "remove-orphans",
     .set = set_remove_orphans,
     .doc = "end what the project has and the file has no more"},
    TIMEOUT_OPTION,
    {0},
};

static const struct option down_options[] = {FILE_OPTION, PROJECT_OPTION, TIMEOUT_OPTION, {0}};

static const struct option ps_options[] = {FILE_OPTION, PROJECT_OPTION, {0}};

const struct command compose_commands[] = {
    {.group = "compose",
     .name = "up",
     .summary = "start the services of a Compose file",
     .options = up_options,
     .method = METHOD_COUNT_,
     .run = compose_up,
     .text = "Services that run already are left alone, unless the file has changed them. Without "
             "--detach their\n"
             "output is shown, with the service's name before each line, until all have ended or "
             "Ctrl-C ends them.\n"
             "With --detach it goes to the journal (journalctl -t GUEST)."},
    {.group = "compose",
     .name = "down",
     .summary = "end the services of a Compose file and remove its networks",
     .options = down_options,
     .method = METHOD_COUNT_,
     .run = compose_down,
     .text = "With --project-name no file is needed."},
    {.group = "compose",
     .name = "ps",
     .summary = "list the services of a Compose file",
     .options = ps_options,
     .method = METHOD_GUEST_GET,
     .run = compose_ps,
     .text = "With --project-name no file is needed."},
    {0},
};
