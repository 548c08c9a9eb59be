/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Release by scope: the owner declares _cleanup_(x) and hands over with TAKE_PTR / TAKE_FD. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(function) __attribute__((cleanup(function)))

static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_fclose(FILE **file)
{
    if (*file)
        fclose(*file);
}

#define _cleanup_free_ _cleanup_(cleanup_free)
#define _cleanup_close_ _cleanup_(cleanup_close)
#define _cleanup_fclose_ _cleanup_(cleanup_fclose)

/* Hands the pointer over: the variable is NULL after it. */
#define TAKE_PTR(pointer)                       \
    __extension__({                             \
        __typeof__(pointer) taken_ = (pointer); \
        (pointer) = NULL;                       \
        taken_;                                 \
    })

/* Hands the descriptor over: the variable is -1 after it. */
#define TAKE_FD(fd)        \
    __extension__({        \
        int taken_ = (fd); \
        (fd) = -1;         \
        taken_;            \
    })

/* Hands a struct with its contents over: the variable is all zero after it. */
#define TAKE_STRUCT(object)                   \
    __extension__({                           \
        __typeof__(object) taken_ = (object); \
        (object) = (__typeof__(object)){0};   \
        taken_;                               \
    })

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* Defines `static inline void FUNCTIONp(TYPE **)`, which calls FUNCTION, for _cleanup_(FUNCTIONp).
 */
#define DEFINE_CLEANUP(type, function)             \
    static inline void function##p(type **pointer) \
    {                                              \
        function(*pointer);                        \
    }
