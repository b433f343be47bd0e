/* What a page server could reach at best: the peer of the page benchmarks.

       page_peer pages|bare PAGES

   Listens on a free port of the loopback, which it prints. Speaks as much of the protocol as the
   client needs, with a thread for each connection. `pages`: takes the requests that are there, up to
   64, and sends the heads of the replies and the pages, gathered from where they lie in an array of
   PAGES pages, together. `bare`: counts bytes and sends as many as the replies would have from a
   buffer as large as that array; nothing is parsed and nothing gathered. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define REQUEST 47
#define REPLY 8239
#define PAGE 8192
#define BATCH 64

static unsigned char *pages;
static uint32_t page_count;
static int bare;

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

static int send_all(int fd, const unsigned char *data, size_t length)
{
    while (length > 0) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n <= 0) return 0;
        data += n;
        length -= n;
    }
    return 1;
}

static int read_all(int fd, unsigned char *data, size_t length)
{
    while (length > 0) {
        ssize_t n = recv(fd, data, length, 0);
        if (n <= 0) return 0;
        data += n;
        length -= n;
    }
    return 1;
}

/* Startup packet and the query that begins the stream, answered with the least there is. */
static int welcome(int fd)
{
    static const unsigned char ready[] = {'R', 0, 0, 0, 8, 0, 0, 0, 0, 'Z', 0, 0, 0, 5, 'I'};
    static const unsigned char both[] = {'W', 0, 0, 0, 7, 0, 0, 0};
    unsigned char body[1024];
    if (!read_all(fd, body, 4) || be32(body) > sizeof body) return 0;
    if (!read_all(fd, body, be32(body) - 4) || !send_all(fd, ready, sizeof ready)) return 0;
    if (!read_all(fd, body, 5) || be32(body + 1) > sizeof body) return 0;
    return read_all(fd, body, be32(body + 1) - 4) && send_all(fd, both, sizeof both);
}

static int send_gathered(int fd, struct iovec *parts, size_t count)
{
    while (count > 0) {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
        ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (n <= 0) return 0;
        while (count > 0 && (size_t)n >= parts->iov_len) {
            n -= parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + n;
            parts->iov_len -= n;
        }
    }
    return 1;
}

static int answer(int fd, const unsigned char *requests, size_t count)
{
    unsigned char heads[BATCH][REQUEST];
    struct iovec parts[2 * BATCH];
    for (size_t i = 0; i < count; i++) {
        const unsigned char *request = requests + i * REQUEST;
        if (request[0] != 'd' || be32(request + 1) != REQUEST - 1 || request[5] != 2) return 0;
        memcpy(heads[i], request, REQUEST);
        heads[i][3] = (REPLY - 1) >> 8;
        heads[i][4] = (REPLY - 1) & 255;
        heads[i][5] = 102;
        parts[2 * i] = (struct iovec){heads[i], REQUEST};
        parts[2 * i + 1] = (struct iovec){
            pages + (size_t)(be32(request + 43) % page_count) * PAGE, PAGE};
    }
    return send_gathered(fd, parts, 2 * count);
}

/* The same number of bytes, from one place after the other. */
static int answer_bare(int fd, size_t count, size_t *at)
{
    size_t length = count * REPLY;
    if (*at + length > (size_t)(page_count + BATCH) * PAGE) *at = 0;
    *at += length;
    return send_all(fd, pages + *at - length, length);
}

static void *serve(void *argument)
{
    int fd = (int)(intptr_t)argument, going = welcome(fd);
    static const int one = 1;
    unsigned char requests[BATCH * REQUEST];
    size_t have = 0, at = 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (going) {
        ssize_t n = recv(fd, requests + have, sizeof requests - have, 0);
        if (n <= 0) break;
        have += n;
        size_t count = have / REQUEST;
        going = bare ? answer_bare(fd, count, &at) : answer(fd, requests, count);
        have -= count * REQUEST;
        memmove(requests, requests + count * REQUEST, have);
    }
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    if (argc != 3 || atoi(argv[2]) < 1) return 2;
    bare = strcmp(argv[1], "bare") == 0;
    page_count = atoi(argv[2]);
    pages = malloc((size_t)(page_count + BATCH + 1) * PAGE);
    memset(pages, 7, (size_t)(page_count + BATCH + 1) * PAGE);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd < 0) return 1;
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd)) return 1;
        pthread_detach(thread);
    }
}
