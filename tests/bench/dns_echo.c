/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The floor for a name server: datagrams are sent back as they came, by one thread, with recvmmsg
 * and sendmmsg. bench_dns_echo ADDRESS PORT [CPU] */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define SIZE 1232

static int cpu_pin(const char *text)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET((size_t)strtoul(text, NULL, 10), &cpus);
    return sched_setaffinity(0, sizeof(cpus), &cpus);
}

static int socket_bound(const char *address, const char *port)
{
    struct sockaddr_in sockaddr = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int size = 4 << 20;

    if (fd < 0 || inet_pton(AF_INET, address, &sockaddr.sin_addr) != 1)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    if (bind(fd, (const struct sockaddr *)&sockaddr, sizeof(sockaddr)) < 0)
        return -1;
    return fd;
}

static void echo(int fd)
{
    static uint8_t data[BATCH][SIZE];
    static struct sockaddr_in addresses[BATCH];
    struct mmsghdr messages[BATCH] = {0};
    struct iovec parts[BATCH];

    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){.iov_base = data[i], .iov_len = SIZE};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &addresses[i],
                                              .msg_namelen = sizeof(addresses[i]),
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1};
    }
    for (;;) {
        int count = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);

        if (count < 0 && errno != EINTR)
            return;
        for (int i = 0; i < count; i++)
            parts[i].iov_len = messages[i].msg_len;
        for (int done = 0; done < count;) {
            int sent = sendmmsg(fd, messages + done, (unsigned)(count - done), 0);

            done += sent > 0 ? sent : 1;
        }
        for (int i = 0; i < count; i++)
            parts[i].iov_len = SIZE;
    }
}

int main(int argc, char **argv)
{
    int fd;

    if (argc < 3 || (argc > 3 && cpu_pin(argv[3]) < 0)) {
        fprintf(stderr, "usage: bench_dns_echo ADDRESS PORT [CPU]\n");
        return 2;
    }
    fd = socket_bound(argv[1], argv[2]);
    if (fd < 0) {
        fprintf(stderr, "bench_dns_echo: %s\n", strerror(errno));
        return 1;
    }
    echo(fd);
    return 1;
}
