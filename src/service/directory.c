/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The directories of the state and of run-time files: made where they are missing, locked against
 * another moatd, and removed with the last of what moat made. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/private.h"

#define LOCK_NAME "moatd.lock"
#define LOCK_WAIT_MS 1000 /* for a holder that is ending */
#define LOCK_GRACE_MS 200 /* for one that may have been killed a moment ago */

/* *ret_made: how many folders of the path were not there. */
static int make_directory(const char *path, mode_t mode, unsigned *ret_made, struct error *error)
{
    char copy[4096];

    if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
        return error_set(error, ENAMETOOLONG, "directory %s", path);
    for (char *p = copy + 1;; p++) {
        char end = *p;

        if (end != '/' && end != '\0')
            continue;
        *p = '\0';
        if (mkdir(copy, end ? 0755 : mode) == 0)
            ++*ret_made;
        else if (errno != EEXIST)
            return error_set(error, errno, "cannot make the directory %s", copy);
        *p = end;
        if (!end)
            break;
    }
    return 0;
}

static void read_holder(int fd, char *text, size_t size)
{
    ssize_t length = pread(fd, text, size - 1, 0);

    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

/* Does the process run, or is it on its way out (killed a moment ago)? */
static bool holder_runs(const char *pid)
{
    char path[64];
    char text[512];
    _cleanup_close_ int fd = -1;
    ssize_t length;
    const char *after;

    snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    length = read(fd, text, sizeof(text) - 1);
    text[length > 0 ? length : 0] = '\0';
    after = strrchr(text, ')');
    return after && after[1] == ' ' && after[2] != 'Z' && after[2] != 'X';
}

/* A holder that is ending is waited for, LOCK_WAIT_MS at most. 0 or -EWOULDBLOCK with its pid. */
static int take_lock(int fd, char *pid, size_t size)
{
    static const struct timespec pause = {.tv_nsec = 10000000L};

    for (unsigned waited_ms = 0;; waited_ms += 10) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK)
            return -errno;
        read_holder(fd, pid, size);
        if (waited_ms >= LOCK_WAIT_MS || (waited_ms >= LOCK_GRACE_MS && holder_runs(pid)))
            return -EWOULDBLOCK;
        nanosleep(&pause, NULL);
    }
}

static int lock_directory(const char *directory, int *ret_fd, struct error *error)
{
    _cleanup_close_ int fd = -1;
    char path[4096];
    char pid[32];
    int length;
    int r;

    snprintf(path, sizeof(path), "%s/" LOCK_NAME, directory);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(error, errno, "cannot open %s", path);
    r = take_lock(fd, pid, sizeof(pid));
    if (r == -EWOULDBLOCK)
        return error_set_reason(
            error, REASON_IN_USE,
            "another moatd (pid %s) uses %s; stop it, or give other directories", pid, directory);
    if (r < 0)
        return error_set(error, r, "cannot lock %s", path);
    length = snprintf(pid, sizeof(pid), "%d\n", getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)length, 0) != length)
        return error_set(error, errno, "cannot write %s", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static bool store_exists(const struct config *config)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/moat.db", config->state_dir);
    return access(path, F_OK) == 0;
}

int directories_open(struct service *service, struct error *error)
{
    const struct config *config = service->config;
    int r = make_directory(config->state_dir, 0700, &service->made_state_dir, error);

    if (r >= 0)
        r = make_directory(config->run_dir, 0755, &service->made_run_dir, error);
    if (r >= 0)
        r = lock_directory(config->state_dir, &service->lock_fds[0], error);
    if (r >= 0 && strcmp(config->state_dir, config->run_dir) != 0)
        r = lock_directory(config->run_dir, &service->lock_fds[1], error);
    service->started_run_dir = service->made_run_dir;
    service->made_store = !store_exists(config);
    return r;
}

/* Who made a directory is remembered in the store, for a teardown by a later moatd. */
static int remember(struct service *service, const char *setting, unsigned *made,
                    struct error *error)
{
    _cleanup_free_ char *before = NULL;
    char value[16];
    int r = store_setting_get(service->store, setting, &before, error);

    if (r < 0)
        return r;
    if (before) {
        *made = (unsigned)strtoul(before, NULL, 10);
        return 0;
    }
    snprintf(value, sizeof(value), "%u", *made);
    return *made ? store_setting_set(service->store, setting, value, error) : 0;
}

int directories_remember(struct service *service, struct error *error)
{
    int r = remember(service, "made/state_dir", &service->made_state_dir, error);

    return r < 0 ? r : remember(service, "made/run_dir", &service->made_run_dir, error);
}

static void remove_directory(const char *path, unsigned made)
{
    char copy[4096];

    snprintf(copy, sizeof(copy), "%s", path);
    for (; made > 0; made--) {
        char *slash = strrchr(copy, '/');

        if (rmdir(copy) < 0) {
            log_info("%s stays: %s", copy, strerror(errno));
            return;
        }
        if (!slash || slash == copy)
            return;
        *slash = '\0';
    }
}

/* The other way round than they were made: one may be below what was made for the other. */
static void directories_remove(struct service *service)
{
    remove_directory(service->config->run_dir, service->made_run_dir);
    remove_directory(service->config->state_dir, service->made_state_dir);
}

static void remove_file(const char *directory, const char *name)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    if (unlink(path) < 0 && errno != ENOENT)
        log_warning("%s: %s", path, strerror(errno));
}

static void remove_store(struct service *service)
{
    static const char *const files[] = {"moat.db", "moat.db-wal", "moat.db-shm"};

    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        remove_file(service->config->state_dir, files[i]);
}

/* Only where they are ours. */
static void remove_locks(struct service *service)
{
    if (service->lock_fds[0] >= 0)
        remove_file(service->config->state_dir, LOCK_NAME);
    if (service->lock_fds[1] >= 0)
        remove_file(service->config->run_dir, LOCK_NAME);
}

void directories_forget(struct service *service)
{
    if (service->lock_fds[0] >= 0)
        remove_store(service);
    remove_locks(service);
    directories_remove(service);
}

/* There is a store, so the state directory was there. */
void directories_unmake(struct service *service)
{
    if (service->started_run_dir == 0)
        return;
    if (service->lock_fds[1] >= 0)
        remove_file(service->config->run_dir, LOCK_NAME);
    remove_directory(service->config->run_dir, service->started_run_dir);
}
