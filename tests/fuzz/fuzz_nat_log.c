/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The beginning of a packet that the kernel tells of: its bytes are a guest's. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "nat/log.h"

static void must(bool condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nat_log_entry entry = {0};
    uint8_t *copy = malloc(size + 1);

    must(copy != NULL);
    memcpy(copy, data, size);
    if (nat_log_parse_packet(copy, size, &entry) == 0) {
        must(entry.source.family == entry.destination.family);
        must(entry.source.family == (data[0] >> 4 == 4 ? AF_INET : AF_INET6));
    }
    free(copy);
    return 0;
}
