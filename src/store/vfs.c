/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every other file is opened by the system's VFS and is its alone. The log (WAL) is wrapped.
 *
 * A log is a header and then frames: 24 bytes, of which bytes 4 to 7 are the size of the database
 * in the last frame of a transaction and 0 in others, and a page (sqlite.org/fileformat2.html, "The
 * Write-Ahead Log"). SQLite writes each header and each page by a call of its own, one behind the
 * other. They gather here until the page that ends the transaction, and leave with it: so it is the
 * commit that fails where the disk is full, as SQLite expects. Whatever does not go on where the
 * last write ended is written as it comes, and whoever looks at the file finds everything written.
 * What a crash of the program loses is of a transaction that was not committed. */
#include "store/vfs.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_HEADER_SIZE 24
#define GATHER_MAX 65536

struct log_file {
    sqlite3_file file; /* first: it is what SQLite sees */
    bool commits;      /* the page that comes ends a transaction */
    sqlite3_int64 end; /* where the last write ended, gathered or not */
    int length;        /* of what is gathered */
    unsigned char *gathered;
    _Alignas(8) unsigned char system[]; /* the system's own; SQLite aligns by 8 */
};

static struct log_file *log_of(sqlite3_file *file)
{
    return (struct log_file *)file;
}

static sqlite3_file *system_of(sqlite3_file *file)
{
    return (sqlite3_file *)log_of(file)->system;
}

static int system_write(sqlite3_file *file, const void *data, int length, sqlite3_int64 offset)
{
    sqlite3_file *system = system_of(file);

    return system->pMethods->xWrite(system, data, length, offset);
}

/* What can't be written is dropped: the transaction fails, and is not in the log. */
static int flush(sqlite3_file *file)
{
    struct log_file *log = log_of(file);
    int length = log->length;

    log->length = 0;
    log->commits = false;
    return length ? system_write(file, log->gathered, length, log->end - length) : SQLITE_OK;
}

static int write_through(sqlite3_file *file, const void *data, int length, sqlite3_int64 offset)
{
    int result = flush(file);

    log_of(file)->end = offset + length;
    return result == SQLITE_OK ? system_write(file, data, length, offset) : result;
}

static bool ends_transaction(const unsigned char *header)
{
    return header[4] || header[5] || header[6] || header[7];
}

static int gather(sqlite3_file *file, const void *data, int length)
{
    struct log_file *log = log_of(file);
    bool is_page = length != FRAME_HEADER_SIZE;

    memcpy(log->gathered + log->length, data, (size_t)length);
    log->length += length;
    log->end += length;
    if (is_page && log->commits)
        return flush(file);
    if (!is_page)
        log->commits = ends_transaction(data);
    return SQLITE_OK;
}

static int log_write(sqlite3_file *file, const void *data, int length, sqlite3_int64 offset)
{
    const struct log_file *log = log_of(file);
    int result = SQLITE_OK;

    /* What begins is a frame's header at the end; a page goes behind its header. */
    if (offset != log->end || length > GATHER_MAX ||
        (log->length == 0 && length != FRAME_HEADER_SIZE))
        return write_through(file, data, length, offset);
    if (log->length > GATHER_MAX - length) {
        bool commits = log->commits;

        result = flush(file);
        log_of(file)->commits = commits;
    }
    return result == SQLITE_OK ? gather(file, data, length) : result;
}

static int log_close(sqlite3_file *file)
{
    sqlite3_file *system = system_of(file);
    int result = flush(file);
    int closed = system->pMethods->xClose(system);

    free(log_of(file)->gathered);
    return result == SQLITE_OK ? closed : result;
}

static int log_read(sqlite3_file *file, void *data, int length, sqlite3_int64 offset)
{
    sqlite3_file *system = system_of(file);
    int result = flush(file);

    return result == SQLITE_OK ? system->pMethods->xRead(system, data, length, offset) : result;
}

static int log_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    sqlite3_file *system = system_of(file);
    int result = flush(file);

    return result == SQLITE_OK ? system->pMethods->xTruncate(system, size) : result;
}

static int log_sync(sqlite3_file *file, int flags)
{
    sqlite3_file *system = system_of(file);
    int result = flush(file);

    return result == SQLITE_OK ? system->pMethods->xSync(system, flags) : result;
}

static int log_size(sqlite3_file *file, sqlite3_int64 *ret_size)
{
    sqlite3_file *system = system_of(file);
    int result = flush(file);

    return result == SQLITE_OK ? system->pMethods->xFileSize(system, ret_size) : result;
}

/* A log is locked by the locks of its database: these are not called, but are there. */
static int log_lock(sqlite3_file *file, int level)
{
    sqlite3_file *system = system_of(file);

    return system->pMethods->xLock(system, level);
}

static int log_unlock(sqlite3_file *file, int level)
{
    sqlite3_file *system = system_of(file);

    return system->pMethods->xUnlock(system, level);
}

static int log_is_reserved(sqlite3_file *file, int *ret_reserved)
{
    sqlite3_file *system = system_of(file);

    return system->pMethods->xCheckReservedLock(system, ret_reserved);
}

static int log_control(sqlite3_file *file, int operation, void *argument)
{
    sqlite3_file *system = system_of(file);

    return system->pMethods->xFileControl(system, operation, argument);
}

static int log_sector_size(sqlite3_file *file)
{
    sqlite3_file *system = system_of(file);

    return system->pMethods->xSectorSize(system);
}

static int log_characteristics(sqlite3_file *file)
{
    sqlite3_file *system = system_of(file);

    return system->pMethods->xDeviceCharacteristics(system);
}

static const sqlite3_io_methods log_methods = {
    .iVersion = 1,
    .xClose = log_close,
    .xRead = log_read,
    .xWrite = log_write,
    .xTruncate = log_truncate,
    .xSync = log_sync,
    .xFileSize = log_size,
    .xLock = log_lock,
    .xUnlock = log_unlock,
    .xCheckReservedLock = log_is_reserved,
    .xFileControl = log_control,
    .xSectorSize = log_sector_size,
    .xDeviceCharacteristics = log_characteristics,
};

static sqlite3_vfs *system_vfs;
static sqlite3_vfs store_vfs; /* a copy of it, but for xOpen */

static int log_open(const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    struct log_file *log = log_of(file);
    int result;

    *log = (struct log_file){.end = -1, .gathered = malloc(GATHER_MAX)};
    if (!log->gathered)
        return SQLITE_NOMEM;
    result = system_vfs->xOpen(system_vfs, name, system_of(file), flags, ret_flags);
    if (result == SQLITE_OK)
        file->pMethods = &log_methods;
    else
        free(log->gathered);
    return result;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                    int *ret_flags)
{
    (void)vfs;
    if (flags & SQLITE_OPEN_WAL)
        return log_open(name, file, flags, ret_flags);
    return system_vfs->xOpen(system_vfs, name, file, flags, ret_flags);
}

int store_vfs_register(void)
{
    if (system_vfs)
        return 0;
    system_vfs = sqlite3_vfs_find(NULL);
    if (!system_vfs)
        return -ENOMEM; /* the library could not be initialised */
    store_vfs = *system_vfs;
    store_vfs.zName = STORE_VFS;
    store_vfs.pNext = NULL;
    store_vfs.szOsFile = (int)sizeof(struct log_file) + system_vfs->szOsFile;
    store_vfs.xOpen = vfs_open;
    if (sqlite3_vfs_register(&store_vfs, 0) == SQLITE_OK)
        return 0;
    system_vfs = NULL;
    return -ENOMEM;
}
