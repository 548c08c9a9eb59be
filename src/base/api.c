/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/api.h"

#include <stdlib.h>

void dns_log_result_deinit(struct dns_log_result *result)
{
    for (size_t i = 0; i < result->n_queries; i++)
        free(result->queries[i].name);
    free(result->queries);
    *result = (struct dns_log_result){0};
}
