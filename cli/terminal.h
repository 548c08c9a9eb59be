/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who has the caller's terminal.
 *
 * COMMAND is in the caller's session. Its process group is the caller's too, so that pipelines,
 * scripts and background jobs behave as ever, with one exception: where `moat` is a foreground job
 * by itself on a terminal that is its standard input, output and error, COMMAND gets a group of its
 * own and the terminal. For a shell inside asks which group had the terminal before, and gives it
 * back at its end; the caller's group has no number in COMMAND's process namespace. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* Asked before COMMAND's process is made. */
bool terminal_wants_own_group(void);
/* COMMAND's process makes its group and takes the terminal. */
void terminal_enter_own_group(void);

/* The controlling terminal, or -1. The caller closes it. */
int terminal_open(void);
/* Gives the terminal (-1: none) to a group, if the caller's group has it. */
void terminal_give(int terminal, pid_t group);
/* Gives the terminal to the caller's group, if `group` has it, or a group that has no process any
 * more: that can only be one of COMMAND's. */
void terminal_take_back(int terminal, pid_t group);
