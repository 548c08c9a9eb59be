/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guard against DNS rebinding: an answer from outside that gives an address of the inside lets
 * a page in a browser talk to it under the outside's name. */
#pragma once

#include "worker/dns_zone.h"

/* Does the answer hold an address that no public name should have: private, shared, link-local,
 * loopback, multicast or unspecified (RFC 6890), also as the hint of an HTTPS or SVCB record, or
 * one of our networks'? data: the message that it was parsed from. */
bool dns_rebind_found(const struct zone *zone, const uint8_t *data,
                      const struct dns_answer *answer);
