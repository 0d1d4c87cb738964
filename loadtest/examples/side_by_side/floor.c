/* The floor: what the kernel alone costs. One edge-triggered epoll loop that looks for nothing but the blank line at the end of a head, and
   answers from a constant, all heads of a read in one write. What a server costs above this is its own.

   Not a server: it knows no limit and no timeout, a head that is cut between two reads is not seen, and what the kernel does not take at
   once is lost. A load generator that writes whole requests and reads its answers meets none of that.

   cc -O2 -o floor floor.c && ./floor 8080 */
#define _GNU_SOURCE /* accept4, memmem */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 1024
#define READ_BYTES_MAX 65536

static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
enum { ANSWER_BYTES = sizeof ANSWER - 1 };

static char input[READ_BYTES_MAX];
/* Every four bytes of input could be an empty head. */
static char output[READ_BYTES_MAX / 4 * ANSWER_BYTES];

static void watch(int poll, int socket, unsigned events) {
    struct epoll_event wanted = {.events = events | EPOLLET, .data.fd = socket};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, socket, &wanted) != 0) close(socket);
}

static void accept_all(int poll, int listener) {
    const int on = 1;
    int socket;
    while ((socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(poll, socket, EPOLLIN | EPOLLRDHUP);
    }
}

static void answer_all(int socket) {
    ssize_t got;
    do {
        got = read(socket, input, sizeof input);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            close(socket);
            return;
        }
        size_t answered = 0;
        const char *at = input, *const end = input + got;
        while ((at = memmem(at, end - at, "\r\n\r\n", 4)) != NULL) {
            memcpy(output + answered, ANSWER, ANSWER_BYTES);
            answered += ANSWER_BYTES;
            at += 4;
        }
        if (answered > 0 && write(socket, output, answered) < 0) {
            close(socket);
            return;
        }
    } while (got == sizeof input); /* A short read has emptied the socket. */
}

int main(int argc, char **argv) {
    const int port = argc == 2 ? atoi(argv[1]) : 0, on = 1;
    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: floor PORT\n");
        return 2;
    }
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int poll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0) {
        perror("floor: cannot listen");
        return 1;
    }
    watch(poll, listener, EPOLLIN);
    static struct epoll_event events[EVENTS_MAX];
    for (;;) {
        const int count = epoll_wait(poll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            const int ready = events[i].data.fd;
            if (ready == listener) accept_all(poll, listener);
            else answer_all(ready);
        }
    }
}
