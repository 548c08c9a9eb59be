/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between JSON and the structs of the tables; private to proto. */
#pragma once

#include <cjson/cJSON.h>

#include "proto/proto.h"

/* Decodes params: unknown members, members given twice, wrong types and values out of bounds are
 * field errors with the member's path. ret_data must be initialised by proto_object_init. On
 * failure it may be half-filled: deinit it. */
int codec_decode_params(const cJSON *json, const struct proto_object *object, const char *path,
                        void *ret_data, struct error *error);
/* Decodes a result: unknown members are passed over (a newer daemon), null is absent. */
int codec_decode_result(const cJSON *json, const struct proto_object *object, void *ret_data,
                        struct error *error);

void codec_encode_string(struct text *text, const char *string);
void codec_encode_strings(struct text *text, const struct strings *strings);
/* All fields, in the table's order. */
void codec_encode_object(struct text *text, const struct proto_object *object, const void *data);
/* Only the fields that differ from their default. */
void codec_encode_params(struct text *text, const struct proto_object *object, const void *data);
