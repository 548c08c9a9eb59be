/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Each step has a counter of its passes, kept for the life of the process. The lists of the
 * environment are read at every pass: this is compiled into test builds only, and a test may change
 * them. */
#include "base/fault.h"

#ifdef MOAT_FAULTS

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CRASH_STATUS 86

struct step {
    struct step *next;
    unsigned long passes;
    char name[];
};

static struct step *steps;
static pthread_mutex_t steps_lock = PTHREAD_MUTEX_INITIALIZER;

static struct step *step_get(const char *name)
{
    struct step *step = steps;

    while (step && strcmp(step->name, name) != 0)
        step = step->next;
    if (step)
        return step;
    step = calloc(1, sizeof(*step) + strlen(name) + 1);
    if (!step)
        abort();
    memcpy(step->name, name, strlen(name) + 1);
    step->next = steps;
    steps = step;
    return step;
}

static unsigned long step_pass(const char *name)
{
    pthread_mutex_lock(&steps_lock);
    unsigned long passes = ++step_get(name)->passes;
    pthread_mutex_unlock(&steps_lock);
    return passes;
}

/* Does the comma-separated list of "step[:n]" name this pass? */
static bool list_names_pass(const char *list, const char *step, unsigned long pass)
{
    size_t length = strlen(step);

    while (list && *list) {
        size_t item = strcspn(list, ",:");

        if (item == length && strncmp(list, step, length) == 0) {
            unsigned long wanted = list[item] == ':' ? strtoul(list + item + 1, NULL, 10) : 1;

            if (wanted == pass)
                return true;
        }
        list += strcspn(list, ",");
        list += *list == ',';
    }
    return false;
}

int fault_point(const char *step, struct error *error)
{
    unsigned long pass = step_pass(step);

    if (list_names_pass(getenv("MOAT_CRASH"), step, pass))
        _exit(CRASH_STATUS);
    if (list_names_pass(getenv("MOAT_FAULT"), step, pass))
        return error_set(error, EIO, "injected fault at %s", step);
    return 0;
}

#endif
