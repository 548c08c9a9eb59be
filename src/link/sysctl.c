/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keys are dotted; as with sysctl(8) a '/' in a key stands for a '.' in a file name, such as that
 * of a VLAN's link. */
#include "sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "link.h"

#define SYSCTL_ROOT "/proc/sys/"

static bool component_is_valid(const char *start, size_t length)
{
    return length > 0 && !(length == 1 && start[0] == '.') &&
           !(length == 2 && start[0] == '.' && start[1] == '.');
}

int sysctl_path(const char *key, char ret_path[SYSCTL_PATH_MAX])
{
    size_t used = strlen(SYSCTL_ROOT), start = used, length = strlen(key);
    char path[SYSCTL_PATH_MAX] = SYSCTL_ROOT;

    if (used + length >= sizeof(path))
        return -ENAMETOOLONG;
    for (size_t i = 0; i <= length; i++) {
        if (key[i] == '.' || key[i] == '\0') {
            if (!component_is_valid(path + start, used - start))
                return -EINVAL;
            start = used + 1;
        }
        path[used++] = key[i] == '.' ? '/' : key[i] == '/' ? '.' : key[i];
    }
    /* the NUL at the end went through the loop as well
     * NOLINTNEXTLINE(bugprone-not-null-terminated-result) */
    memcpy(ret_path, path, used);
    return 0;
}

static int sysctl_open(const char *key, int flags, int *ret_fd, struct error *error)
{
    char path[SYSCTL_PATH_MAX];

    int r = sysctl_path(key, path);
    if (r < 0)
        return error_set(error, r, "not the name of a sysctl: %s", key);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, errno, "cannot open the sysctl %s", key);
    *ret_fd = fd;
    return 0;
}

int sysctl_get(const char *key, char ret_value[SYSCTL_VALUE_MAX], struct error *error)
{
    char value[SYSCTL_VALUE_MAX + 1];
    _cleanup_close_ int fd = -1;

    int r = sysctl_open(key, O_RDONLY, &fd, error);
    if (r < 0)
        return r;
    ssize_t length = read(fd, value, sizeof(value));
    if (length < 0)
        return error_set(error, errno, "cannot read the sysctl %s", key);
    while (length > 0 && value[length - 1] == '\n')
        length--;
    if (length >= SYSCTL_VALUE_MAX)
        return error_set(error, EOVERFLOW, "cannot read the sysctl %s", key);
    memcpy(ret_value, value, (size_t)length);
    ret_value[length] = '\0';
    return 0;
}

int sysctl_set(const char *key, const char *value, struct error *error)
{
    _cleanup_close_ int fd = -1;
    size_t length = strlen(value);

    int r = sysctl_open(key, O_WRONLY, &fd, error);
    if (r < 0)
        return r;
    if (write(fd, value, length) != (ssize_t)length)
        return error_set(error, errno, "cannot set the sysctl %s to %s", key, value);
    return 0;
}
