/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which program holds a port of the host? For the message of a refusal. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/address.h"

#define PORT_HOLDER_PROGRAM_MAX 32

struct port_holder {
    pid_t pid;
    char program[PORT_HOLDER_PROGRAM_MAX]; /* as the kernel names it (comm) */
};

/* Looks for a socket of this network namespace on the port that overlaps with the address (absent
 * or unspecified: any address) through sock_diag(7), then for a process that has it through
 * /proc/PID/fd; our own process is not looked at. Milliseconds: it is for failures. False when
 * nothing is found (the socket is the kernel's own, or in the hands of a process that we may not
 * look into). */
bool port_holder_find(uint8_t protocol, const struct ip *ip, uint16_t port,
                      struct port_holder *ret_holder);
/* "nginx (pid 812)", or "" when unknown. Returns text. */
const char *port_holder_format(uint8_t protocol, const struct ip *ip, uint16_t port, char *text,
                               size_t size);

/* Ends what is left of former TCP connections on the port of an overlapping address (TIME_WAIT), if
 * nothing else is there: no program holds the port then, and yet it could not be bound for a
 * minute. Returns how many there were; 0 too where the kernel can't (SOCK_DESTROY, CAP_NET_ADMIN;
 * for TIME_WAIT since Linux 6.5 or so). */
unsigned port_remnants_end(const struct ip *ip, uint16_t port);
