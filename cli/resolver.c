/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "resolver.h"

#include <string.h>
#include <strings.h>

static size_t write_servers(const struct ips *ips, struct text *text)
{
    size_t count = 0;

    for (size_t i = 0; ips && i < ips->count && count < RESOLVER_NAMESERVERS_MAX; i++) {
        char address[IP_TEXT_MAX];

        if (ip_is_loopback(&ips->items[i]))
            continue;
        text_append(text, "nameserver %s\n", ip_format(&ips->items[i], address));
        count++;
    }
    return count;
}

/* A line "nameserver 127.0.0.53", or of any other loopback address. */
static bool is_loopback_server(const char *line, size_t length)
{
    static const char keyword[] = "nameserver";
    char address[IP_TEXT_MAX];
    size_t start = sizeof(keyword) - 1;
    size_t address_length;
    struct ip ip;

    if (length <= start || strncmp(line, keyword, start) != 0)
        return false;
    start += strspn(line + start, " \t");
    address_length = strcspn(line + start, " \t\r\n%#;");
    if (address_length >= sizeof(address))
        return false;
    memcpy(address, line + start, address_length);
    address[address_length] = '\0';
    return ip_parse(address, &ip) == 0 && ip_is_loopback(&ip);
}

static void write_host_text(const char *host_text, struct text *text)
{
    while (*host_text) {
        size_t length = strcspn(host_text, "\n");

        if (!is_loopback_server(host_text, length)) {
            text_append_n(text, host_text, length);
            text_append_n(text, "\n", 1);
        }
        host_text += length + (host_text[length] == '\n');
    }
}

static bool has_server(const struct text *text)
{
    return text->data &&
           (strncmp(text->data, "nameserver", 10) == 0 || strstr(text->data, "\nnameserver"));
}

/* What stands behind a keyword at the beginning of a line; NULL: another line. */
static const char *line_value(const char *line, const char *keyword)
{
    size_t length = strlen(keyword);

    if (strncmp(line, keyword, length) != 0 || (line[length] != ' ' && line[length] != '\t'))
        return NULL;
    return line + length + strspn(line + length, " \t");
}

static const char *next_line(const char *line)
{
    line += strcspn(line, "\n");
    return *line ? line + 1 : line;
}

static bool is_domain(const char *word, size_t length, const char *domain)
{
    if (length > 0 && word[length - 1] == '.')
        length--;
    return strlen(domain) == length && strncasecmp(word, domain, length) == 0;
}

/* The last "search" or "domain" of the host's file counts, as resolv.conf(5) says; without ours,
 * which stands first already (a host that resolves guests has it too). */
static void write_host_search(const char *host_text, const char *domain, struct text *text)
{
    const char *found = NULL;

    for (const char *line = host_text; line && *line; line = next_line(line)) {
        const char *value = line_value(line, "search");

        if (!value)
            value = line_value(line, "domain");
        if (value)
            found = value;
    }
    while (found) {
        size_t length = strcspn(found, " \t\r\n#;");

        if (length > 0 && !is_domain(found, length, domain))
            text_append(text, " %.*s", (int)length, found);
        found += length;
        found = *found == ' ' || *found == '\t' ? found + 1 : NULL;
    }
}

static void write_host_options(const char *host_text, struct text *text)
{
    for (const char *line = host_text; line && *line; line = next_line(line))
        if (line_value(line, "options"))
            text_append(text, "%.*s\n", (int)strcspn(line, "\r\n"), line);
}

/* --dns-search takes the place of the host's domains, as elsewhere. */
static void write_search(const struct resolver *resolver, bool with_domain, struct text *text)
{
    bool first = true;

    if (with_domain && resolver->domain && resolver->domain[0]) {
        text_append(text, "search %s", resolver->domain);
        if (!resolver->search || resolver->search->count == 0)
            write_host_search(resolver->host_text, resolver->domain, text);
        first = false;
    }
    for (size_t i = 0; resolver->search && i < resolver->search->count; i++) {
        text_append(text, "%s%s", first ? "search " : " ", resolver->search->items[i]);
        first = false;
    }
    if (!first)
        text_append(text, "\n");
    if (with_domain)
        write_host_options(resolver->host_text, text);
}

void resolver_write_conf(const struct resolver *resolver, struct text *text)
{
    struct text host = {0};

    text_append(text, "# Made by moat for this guest.\n");
    if (write_servers(&resolver->gateways, text) > 0) {
        write_search(resolver, true, text);
        return;
    }
    if (write_servers(resolver->dns, text) == 0 && resolver->host_text) {
        write_host_text(resolver->host_text, &host);
        if (!has_server(&host))
            write_servers(resolver->host_servers, text);
        text_append_n(text, host.data ? host.data : "", host.length);
        text_deinit(&host);
    }
    write_search(resolver, false, text);
}

/* --- hosts --- */

/* NAME:IP; an address may hold colons, a name doesn't. */
static void write_added(const struct strings *add_hosts, struct text *text)
{
    for (size_t i = 0; add_hosts && i < add_hosts->count; i++) {
        const char *entry = add_hosts->items[i];
        size_t length = strcspn(entry, ":");

        if (entry[length] == ':')
            text_append(text, "%s\t%.*s\n", entry + length + 1, (int)length, entry);
    }
}

static void write_names(const char *address, const struct guest *guest, const char *domain,
                        const char *hostname, struct text *text)
{
    text_append(text, "%s\t", address);
    if (domain && domain[0])
        text_append(text, "%s.%s ", guest->name, domain);
    text_append(text, "%s", guest->name);
    if (hostname[0] && strcmp(hostname, guest->name) != 0)
        text_append(text, " %s", hostname);
    text_append(text, "\n");
}

void resolver_write_hosts(const struct guest *guest, const char *domain, const char *hostname,
                          const struct strings *add_hosts, struct text *text)
{
    bool addressed = false;

    text_append(text, "# Made by moat for this guest.\n"
                      "127.0.0.1\tlocalhost\n"
                      "::1\tlocalhost ip6-localhost ip6-loopback\n");
    write_added(add_hosts, text);
    for (size_t i = 0; i < guest->n_endpoints; i++) {
        const struct ip *ips[] = {&guest->endpoints[i].ip, &guest->endpoints[i].ip6};

        for (size_t j = 0; j < 2; j++) {
            char address[IP_TEXT_MAX];

            if (!ip_is_set(ips[j]))
                continue;
            write_names(ip_format(ips[j], address), guest, domain, hostname, text);
            addressed = true;
        }
    }
    if (!addressed)
        write_names("127.0.1.1", guest, domain, hostname, text);
}
