/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/name.h"

#include <net/if.h>
#include <string.h>
#include <sys/random.h>

#define DNS_NAME_MAX 253
#define DNS_LABEL_MAX 63

static bool is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool name_is_valid(const char *name)
{
    size_t length = strnlen(name, NAME_MAX_LENGTH + 1);

    if (length == 0 || length > NAME_MAX_LENGTH)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_lower_alnum(name[i]) && name[i] != '-')
            return false;
    return name[0] != '-' && name[length - 1] != '-';
}

static bool is_dns_character(char c)
{
    return is_lower_alnum(c) || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

bool name_is_dns(const char *name)
{
    size_t length = strnlen(name, DNS_NAME_MAX + 1);
    size_t label = 0;

    if (length == 0 || length > DNS_NAME_MAX)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (name[i] == '.') {
            if (label == 0)
                return false;
            label = 0;
        } else if (!is_dns_character(name[i]) || ++label > DNS_LABEL_MAX) {
            return false;
        }
    }
    return label > 0;
}

bool name_is_interface(const char *name)
{
    size_t length = strnlen(name, IFNAMSIZ);

    if (length == 0 || length >= IFNAMSIZ || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    /* ip-sysctl: they stand for every interface in /proc/sys/net/ipv4/conf. */
    if (strcmp(name, "all") == 0 || strcmp(name, "default") == 0)
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i];

        /* The kernel allows other bytes; control characters and what is not ASCII would only make
         * logs and tables unreadable. */
        if (c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == '%')
            return false;
    }
    return true;
}

void id_generate(char ret_id[ID_TEXT_LENGTH + 1])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[ID_TEXT_LENGTH / 2];

    /* Up to 256 bytes come whole once the pool is ready; EINTR only happens before that. */
    while (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        continue;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        ret_id[2 * i] = digits[bytes[i] >> 4];
        ret_id[2 * i + 1] = digits[bytes[i] & 0xf];
    }
    ret_id[ID_TEXT_LENGTH] = '\0';
}
