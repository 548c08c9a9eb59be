/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/rate.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* The greatest first. */
static const struct {
    const char *name;
    uint64_t bits;
} units[] = {
    {"tbit", 1000000000000}, {"gbit", 1000000000}, {"mbit", 1000000}, {"kbit", 1000}, {"bit", 1},
};

static uint64_t unit_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(units); i++)
        if (strcmp(units[i].name, name) == 0)
            return units[i].bits;
    return 0;
}

static int refuse(const char *text, const char *field, struct error *error)
{
    return error_set_field(error, field,
                           "\"%.40s\" is not a rate such as 512kbit, 10mbit or 1gbit, from 64kbit "
                           "to 1tbit; none takes the limit away",
                           text);
}

int rate_parse(const char *text, const char *field, uint64_t *ret_bits, struct error *error)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t unit = unit_find(text + digits);
    uint64_t number = 0;

    if (strcmp(text, "none") == 0) {
        *ret_bits = 0;
        return 0;
    }
    if (digits == 0 || digits > 13 || unit == 0)
        return refuse(text, field, error);
    for (size_t i = 0; i < digits; i++)
        number = number * 10 + (uint64_t)(text[i] - '0');
    if (number > RATE_MAX_BITS / unit || number * unit < RATE_MIN_BITS)
        return refuse(text, field, error);
    *ret_bits = number * unit;
    return 0;
}

const char *rate_format(uint64_t bits, char text[RATE_TEXT_MAX])
{
    size_t i = 0;

    while (bits % units[i].bits != 0)
        i++;
    if (bits == 0)
        snprintf(text, RATE_TEXT_MAX, "none");
    else
        snprintf(text, RATE_TEXT_MAX, "%" PRIu64 "%s", bits / units[i].bits, units[i].name);
    return text;
}
