/* The client of the page benchmarks: asks for pages as fast as they come, and costs little itself.

       page_load PORT CONNECTIONS DEPTH SECONDS FRAMES QUERY

   FRAMES is a file of GetPage requests, 47 bytes each, their CopyData frames included. They are asked
   for over and over, DEPTH of them under way on each connection. QUERY begins the page stream.

   With SECONDS 0 every request is asked once and every reply is read whole and checked: it must be a
   page that echoes its request. Otherwise the bytes of the replies are thrown away by the kernel
   (MSG_TRUNC), so that the client's copying does not hide the server's speed; of every 64th receive
   the heads are read and checked. With the query `bare` nothing is checked: for a server whose replies are only as
   long as pages. Prints one line of JSON; exit status 1 if anything was not as it must be. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REQUEST 47
#define REPLY 8239
#define CHUNK (1 << 20)
#define LOOK_EVERY 64
#define CONNECTIONS_MAX 64

struct stream {
    int fd;
    long sent;               /* requests */
    unsigned long received;  /* bytes */
    long done;               /* whole replies */
    long first;              /* index of its first request */
};

static unsigned char *frames;
static long frame_count;
static unsigned char chunk[CHUNK];
static long looked_at, receive_count;
static int checking;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void send_all(int fd, const void *data, size_t length)
{
    const char *p = data;
    while (length > 0) {
        ssize_t n = send(fd, p, length, MSG_NOSIGNAL);
        if (n <= 0) fail("send");
        p += n;
        length -= n;
    }
}

static void read_all(int fd, void *data, size_t length)
{
    char *p = data;
    while (length > 0) {
        ssize_t n = recv(fd, p, length, 0);
        if (n <= 0) fail("receive");
        p += n;
        length -= n;
    }
}

/* Skip messages up to and with the one of this tag. */
static void await(int fd, char tag)
{
    unsigned char head[5];
    do {
        read_all(fd, head, 5);
        uint32_t length = (uint32_t)head[1] << 24 | head[2] << 16 | head[3] << 8 | head[4];
        if (length < 4 || length - 4 > CHUNK) {
            fprintf(stderr, "a message %c of length %u\n", head[0], length);
            exit(1);
        }
        read_all(fd, chunk, length - 4);
        if (head[0] == 'E') {
            fprintf(stderr, "the server refuses: %.*s\n", (int)(length - 4), chunk);
            exit(1);
        }
    } while (head[0] != tag);
}

static void begin_stream(struct stream *s, int port, const char *query)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    unsigned char head[8] = {0};
    static const char startup[] = "user\0pageserver\0database\0pageserver\0";
    int one = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    head[3] = 8 + sizeof startup;
    head[5] = 3; /* protocol 3.0 */
    send_all(s->fd, head, 8);
    send_all(s->fd, startup, sizeof startup);
    await(s->fd, 'Z');
    uint32_t length = 5 + strlen(query);
    unsigned char message[5] = {'Q', length >> 24, length >> 16, length >> 8, length};
    send_all(s->fd, message, 5);
    send_all(s->fd, query, length - 4);
    await(s->fd, 'W');
}

/* The head of reply number `number` of a stream: its request with another length and tag. */
static void check_head(const struct stream *s, long number, const unsigned char *reply)
{
    static const unsigned char expected[6] = {'d', 0, 0, 8238 >> 8, 8238 & 255, 102};
    const unsigned char *request = frames + (s->first + number) % frame_count * REQUEST;
    if (memcmp(reply, expected, 6) || memcmp(reply + 6, request + 6, REQUEST - 6)) {
        if (reply[5] == 103) fprintf(stderr, "an Error reply: %.200s\n", reply + 30);
        else fprintf(stderr, "reply %ld is not the page that was asked for\n", number);
        exit(1);
    }
    looked_at++;
}

static void ask(struct stream *s, long count)
{
    long at = (s->first + s->sent) % frame_count;
    send_all(s->fd, frames + at * REQUEST, count * REQUEST);
    s->sent += count;
}

/* Every request once, every reply read whole. */
static void check_all(struct stream *s, long depth)
{
    while (s->done < frame_count) {
        long count = frame_count - s->done < depth ? frame_count - s->done : depth;
        ask(s, count);
        for (long i = 0; i < count; i++) {
            read_all(s->fd, chunk, REQUEST - 17); /* the shortest reply: an Error */
            if (chunk[5] != 102) recv(s->fd, chunk + REQUEST - 17, 4000, 0);
            else read_all(s->fd, chunk + REQUEST - 17, REPLY - REQUEST + 17);
            check_head(s, s->done++, chunk);
        }
    }
    s->sent = s->done = 0;
}

/* Take what has come; ask for as many pages again. */
static void turn(struct stream *s)
{
    ssize_t n;
    if (++receive_count % LOOK_EVERY || !checking) {
        n = recv(s->fd, NULL, CHUNK, MSG_TRUNC);
    } else {
        n = recv(s->fd, chunk, CHUNK, 0);
        for (long at = (REPLY - s->received % REPLY) % REPLY; at + REQUEST <= n; at += REPLY)
            check_head(s, (s->received + at) / REPLY, chunk + at);
    }
    if (n <= 0) fail("receive");
    s->received += n;
    long whole = s->received / REPLY - s->done;
    s->done += whole;
    if (whole) ask(s, whole);
}

static void load_frames(const char *path, long extra)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    fseek(file, 0, SEEK_END);
    frame_count = ftell(file) / REQUEST;
    rewind(file);
    /* The first ones stand behind the last again, so that any run of `extra` is in one piece. */
    frames = malloc((frame_count + extra) * REQUEST);
    if (frame_count == 0 || fread(frames, REQUEST, frame_count, file) != (size_t)frame_count)
        fail(path);
    for (long i = 0; i < extra; i++)
        memcpy(frames + (frame_count + i) * REQUEST, frames + i % frame_count * REQUEST, REQUEST);
    fclose(file);
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: page_load PORT CONNECTIONS DEPTH SECONDS FRAMES QUERY\n");
        return 2;
    }
    int connections = atoi(argv[2]), depth = atoi(argv[3]);
    double seconds = atof(argv[4]);
    static struct stream streams[CONNECTIONS_MAX];
    struct epoll_event events[CONNECTIONS_MAX];
    int poller = epoll_create1(0);

    if (connections < 1 || connections > CONNECTIONS_MAX || depth < 1) return 2;
    checking = strcmp(argv[6], "bare") != 0;
    load_frames(argv[5], depth);
    for (int i = 0; i < connections; i++) {
        begin_stream(&streams[i], atoi(argv[1]), argv[6]);
        if (i == 0 && seconds == 0) check_all(&streams[0], depth);
        streams[i].first = frame_count * i / connections;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &streams[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, streams[i].fd, &event);
    }
    double begin = now(), cpu = cpu_seconds(), end = begin + seconds;
    for (int i = 0; i < connections; i++) ask(&streams[i], depth);
    while (now() < end) {
        if (connections == 1) {
            turn(&streams[0]);
            continue;
        }
        int ready = epoll_wait(poller, events, CONNECTIONS_MAX, -1);
        for (int i = 0; i < ready; i++) turn(events[i].data.ptr);
    }
    seconds = now() - begin;
    long pages = 0;
    for (int i = 0; i < connections; i++) pages += streams[i].done;
    printf("{\"pages\": %ld, \"seconds\": %.6f, \"client_cpu_seconds\": %.6f, "
           "\"checked\": %ld, \"receives\": %ld}\n",
           pages, seconds, cpu_seconds() - cpu, looked_at, receive_count);
    return 0;
}
