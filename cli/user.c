/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "user.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

#define GROUPS_MAX 65536

static const char passwd_path[] = "/etc/passwd";
static const char group_path[] = "/etc/group";

/* A decimal id; -1 and anything else is none. */
static bool parse_id(const char *text, uint32_t *ret_id)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t value = 0;

    if (digits == 0 || digits > 10 || text[digits] != '\0')
        return false;
    for (size_t i = 0; i < digits; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    if (value >= UINT32_MAX)
        return false;
    *ret_id = (uint32_t)value;
    return true;
}

/* --- looking up; the results are the C library's and last until the next lookup --- */

/* name NULL: by uid. */
static const struct passwd *files_passwd(FILE *file, const char *name, uid_t uid)
{
    const struct passwd *entry;

    while ((entry = fgetpwent(file)))
        if (name ? strcmp(entry->pw_name, name) == 0 : entry->pw_uid == uid)
            return entry;
    return NULL;
}

static int add_group(struct user *user, gid_t gid)
{
    gid_t *grown = reallocarray(user->groups, user->n_groups + 1, sizeof(*grown));

    if (!grown)
        return -ENOMEM;
    user->groups = grown;
    grown[user->n_groups++] = gid;
    return 0;
}

static bool group_has(const struct group *group, const char *name)
{
    for (char **member = group->gr_mem; *member; member++)
        if (strcmp(*member, name) == 0)
            return true;
    return false;
}

static int files_groups(const char *name, struct user *user)
{
    _cleanup_fclose_ FILE *file = fopen(group_path, "re");
    const struct group *entry;
    int r = add_group(user, user->gid);

    while (r == 0 && file && user->n_groups < GROUPS_MAX && (entry = fgetgrent(file)))
        if (entry->gr_gid != user->gid && group_has(entry, name))
            r = add_group(user, entry->gr_gid);
    return r;
}

static int host_groups(const char *name, struct user *user)
{
    int count = 0;

    getgrouplist(name, user->gid, NULL, &count);
    user->groups = calloc((size_t)count + 1, sizeof(*user->groups));
    if (!user->groups)
        return -ENOMEM;
    count++;
    if (getgrouplist(name, user->gid, user->groups, &count) < 0)
        return -EAGAIN;
    user->n_groups = (size_t)count;
    return 0;
}

/* The account of a name, or of a uid: fills uid, gid and groups. Returns 1, 0 when there is none,
 * or an error. */
static int find_account(const char *name, enum user_source source, struct user *user)
{
    _cleanup_fclose_ FILE *file = source == USER_FILES ? fopen(passwd_path, "re") : NULL;
    const struct passwd *entry = NULL;
    _cleanup_free_ char *login = NULL;
    int r;

    if (source == USER_HOST)
        entry = name ? getpwnam(name) : getpwuid(user->uid);
    else if (file)
        entry = files_passwd(file, name, user->uid);
    if (!entry)
        return 0;
    user->uid = entry->pw_uid;
    user->gid = entry->pw_gid;
    login = strdup(entry->pw_name);
    if (!login)
        return -ENOMEM;
    r = source == USER_HOST ? host_groups(login, user) : files_groups(login, user);
    return r < 0 ? r : 1;
}

static int find_group(const char *name, enum user_source source, gid_t *ret_gid)
{
    _cleanup_fclose_ FILE *file = source == USER_FILES ? fopen(group_path, "re") : NULL;
    const struct group *entry = source == USER_HOST ? getgrnam(name) : NULL;

    while (file && (entry = fgetgrent(file)) && strcmp(entry->gr_name, name) != 0)
        continue;
    if (!entry)
        return -ENOENT;
    *ret_gid = entry->gr_gid;
    return 0;
}

/* --- UID, :GID --- */

static int parse_user(const char *text, enum user_source source, struct user *user,
                      struct error *error)
{
    bool number = parse_id(text, &user->uid);
    int r;

    if (number)
        user->gid = user->uid;
    r = find_account(number ? NULL : text, source, user);
    if (r < 0)
        return error_set(error, r, "can't find the groups of user \"%.80s\"", text);
    if (r == 0 && !number)
        return option_refuse(error, "there is no user \"%.80s\"; give its number", text);
    return 0;
}

static int parse_group(const char *text, enum user_source source, struct user *user,
                       struct error *error)
{
    free(user->groups);
    user->groups = NULL;
    user->n_groups = 0;
    user->gid_given = true;
    if (parse_id(text, &user->gid) || find_group(text, source, &user->gid) == 0)
        return 0;
    return option_refuse(error, "there is no group \"%.80s\"; give its number", text);
}

int user_parse(const char *text, enum user_source source, struct user *ret_user,
               struct error *error)
{
    size_t length = strcspn(text, ":");
    _cleanup_free_ char *name = strndup(text, length);
    struct user user = {0};
    int r;

    if (!name)
        return error_set(error, ENOMEM, "user");
    r = parse_user(name, source, &user, error);
    if (r == 0 && text[length] == ':')
        r = parse_group(text + length + 1, source, &user, error);
    if (r < 0)
        user_deinit(&user);
    else
        *ret_user = user;
    return r;
}

void user_deinit(struct user *user)
{
    free(user->groups);
    *user = (struct user){0};
}
