/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The addresses that a message gives for the name of its question. Pure; any input may be hostile.
 */
#pragma once

#include "worker/dns_codec.h"
#include "worker/dns_message.h"

#define DNS_GIVE_TTL_MAX_S 86400

/* Reads the A and AAAA records of the answer section whose owner is the name, or where its CNAMEs
 * lead (RFC 1034 section 3.6.2), within the first DNS_GIVE_MAX records. TTLs above
 * DNS_GIVE_TTL_MAX_S are lowered in the message itself. Returns how many there are (at most
 * DNS_GIVE_MAX). */
size_t dns_addresses_read(uint8_t *data, size_t length, const struct dns_name *name,
                          struct dns_give_address ret_addresses[DNS_GIVE_MAX]);
