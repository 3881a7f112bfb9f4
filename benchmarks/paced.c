/* The paced load: on each of many connections a small message now and then, at fixed times.

   It does what benchmarks/paced.py does, for less: epoll, one thread, bytes that were made
   beforehand. benchmarks/paced.py builds it, starts it, and tells it all that it knows:

       paced PORT CONNECTIONS RATE REQUEST FRAME REPLY_SIZE

   RATE is messages a second on each connection. REQUEST, the head of the opening request, and
   FRAME, which is sent each time, are hexadecimal; an empty REQUEST stands for no handshake. It
   opens the connections and says "ready". For each line on stdin, a number of seconds, it runs for
   that long and says, as one line of JSON, what it saw; times are microseconds. At the end of stdin
   it ends. Built with -DTLS, it speaks TLS. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum {
    PATIENCE = 30,  /* seconds; nothing takes this long, what does is broken */
    BATCH = 50,     /* connections that are opened at once: a listener's backlog holds these */
    EVENTS = 256,
    TIMER = UINT32_MAX >> 1
};

static const int64_t SECOND = 1000000000;

struct connection {
    int fd;
#ifdef TLS
    SSL *tls;
#endif
    long place;     /* of its first message in the order of sending */
    long echoes;    /* that came in this run */
    long unfinished; /* bytes of the next one */
};

static struct connection *connections;
static long count, reply_size;
static double rate;
static uint8_t *request, *frame;
static long request_size, frame_size;
static int port, epoll_fd, timer_fd;
static uint8_t buffer[1 << 16];

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void fail_of(const char *what)
{
    perror(what);
    exit(1);
}

static void *allocate(size_t number, size_t size)
{
    void *memory = calloc(number, size);
    if (!memory)
        fail("no memory left");
    return memory;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* ------------------------------------------------------------------ Bytes, plain or over TLS */

#ifdef TLS
static SSL_CTX *context;

static void start_tls(struct connection *one)
{
    one->tls = SSL_new(context);
    if (!one->tls || !SSL_set_fd(one->tls, one->fd) || SSL_connect(one->tls) != 1)
        fail("the TLS handshake failed");
}

static void send_bytes(struct connection *one, const uint8_t *bytes, long size)
{
    if (SSL_write(one->tls, bytes, size) != size)
        fail("a connection did not take a whole message");
}

/* How many bytes came, or 0 if none are there. */
static long receive_bytes(struct connection *one)
{
    int size = SSL_read(one->tls, buffer, sizeof buffer);
    if (size > 0)
        return size;
    if (SSL_get_error(one->tls, size) != SSL_ERROR_WANT_READ)
        fail("a connection ended");
    return 0;
}
#else
static void send_bytes(struct connection *one, const uint8_t *bytes, long size)
{
    if (send(one->fd, bytes, size, MSG_NOSIGNAL) != size)
        fail("a connection did not take a whole message");
}

static long receive_bytes(struct connection *one)
{
    ssize_t size = recv(one->fd, buffer, sizeof buffer, 0);
    if (size > 0)
        return size;
    if (size == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        fail("a connection ended");
    return 0;
}
#endif

/* ------------------------------------------------------------------------------- Opening */

static void open_one(struct connection *one)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = PATIENCE};
    int yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (one->fd < 0)
        fail_of("socket");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(one->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(one->fd, (struct sockaddr *)&address, sizeof address))
        fail_of("connect");
#ifdef TLS
    start_tls(one);
#endif
    if (request_size)
        send_bytes(one, request, request_size);
}

static void read_response(struct connection *one)
{
    static const char expected[] = "HTTP/1.1 101";
    char head[4096];
    long size = 0;
    while (size < 4 || memcmp(head + size - 4, "\r\n\r\n", 4)) {
        long came = receive_bytes(one);
        if (!came || size + came > (long)sizeof head)
            fail("no response came that makes sense");
        memcpy(head + size, buffer, came);
        size += came;
    }
    if (size < (long)sizeof expected || memcmp(head, expected, sizeof expected - 1))
        fail("the server refused");
}

static void open_all(void)
{
    for (long start = 0; start < count; start += BATCH) {
        long end = start + BATCH < count ? start + BATCH : count;
        for (long i = start; i < end; i++)
            open_one(&connections[i]);
        for (long i = start; i < end && request_size; i++)
            read_response(&connections[i]);
    }
    for (long i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        fcntl(connections[i].fd, F_SETFL, O_NONBLOCK);
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, connections[i].fd, &event))
            fail_of("epoll_ctl");
    }
}

/* Which connection sends first, second and so on: not in the order in which they were opened, or
   what the server has of them would lie in its memory as it is needed. */
static long *shuffled(void)
{
    long *order = allocate(count, sizeof *order);
    uint64_t state = 7;
    for (long i = 0; i < count; i++)
        order[i] = i;
    for (long i = count - 1; i > 0; i--) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        long j = (state >> 33) % (i + 1), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    for (long i = 0; i < count; i++)
        connections[order[i]].place = i;
    return order;
}

/* ------------------------------------------------------------------------------- Running */

static int compare(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static double percentile(const int64_t *sorted, long number, double part)
{
    long place = (long)(part * number);
    return sorted[place < number ? place : number - 1] / 1e3;
}

static void set_timer(int64_t time)
{
    struct itimerspec setting = {
        .it_value = {.tv_sec = time / SECOND, .tv_nsec = time % SECOND},
    };
    if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &setting, NULL))
        fail_of("timerfd_settime");
}

/* The messages are sent at equal distances, in turn on each connection, whether echoes come or not.
   Latency is from a message's sending, how late that was is kept apart: it is our own doing. */
static void run(double seconds, const long *order)
{
    double distance = 1e9 / (rate * count);
    long number = (long)(seconds * rate * count), sent = 0, received = 0;
    number = number > 0 ? number : 1;
    int64_t *sent_at = allocate(number, sizeof *sent_at);
    int64_t *latencies = allocate(number, sizeof *latencies);
    int64_t *late = allocate(number, sizeof *late);
    struct epoll_event events[EVENTS];
    for (long i = 0; i < count; i++)
        connections[i].echoes = 0;

    int64_t start = now() + 1000000, end = start;
    set_timer(start);
    while (received < number) {
        int ready = epoll_wait(epoll_fd, events, EVENTS, PATIENCE * 1000);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0)
            fail_of("epoll_wait");
        if (ready == 0)
            fail("nothing came");
        bool is_time = false;
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u32 == TIMER) {
                is_time = true;
                continue;
            }
            struct connection *one = &connections[events[i].data.u32];
            for (long came; (came = receive_bytes(one));) {
                one->unfinished += came;
                for (; one->unfinished >= reply_size; one->unfinished -= reply_size) {
                    long message = one->place + one->echoes++ * count;
                    if (message >= sent)
                        fail("more came than was sent");
                    end = now();
                    latencies[received++] = end - sent_at[message];
                }
#ifndef TLS
                if (came < (long)sizeof buffer)
                    break; /* there is no more, and to ask would cost a call */
#endif
            }
        }
        if (!is_time)
            continue;
        int64_t time = now(), due;
        for (; sent < number && (due = start + (int64_t)(sent * distance)) <= time; sent++) {
            sent_at[sent] = time = now();
            late[sent] = time - due;
            send_bytes(&connections[order[sent % count]], frame, frame_size);
        }
        if (sent < number)
            set_timer(start + (int64_t)(sent * distance));
        else
            timerfd_settime(timer_fd, 0, &(struct itimerspec){0}, NULL);
    }
    qsort(latencies, number, sizeof *latencies, compare);
    qsort(late, number, sizeof *late, compare);
    printf("{\"messages\": %ld, \"seconds\": %.6f,"
           " \"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"late\": %.1f}\n",
           number, (end - start) / 1e9, percentile(latencies, number, 0.5),
           percentile(latencies, number, 0.99), percentile(latencies, number, 0.999),
           percentile(late, number, 0.99));
    fflush(stdout);
    free(sent_at);
    free(latencies);
    free(late);
}

/* ------------------------------------------------------------------------------- The whole */

static uint8_t *from_hex(const char *text, long *size)
{
    *size = strlen(text) / 2;
    uint8_t *bytes = allocate(*size + 1, 1);
    for (long i = 0; i < *size; i++)
        if (sscanf(text + 2 * i, "%2hhx", &bytes[i]) != 1)
            fail("not hexadecimal");
    return bytes;
}

int main(int number, char **arguments)
{
    struct epoll_event timer = {.events = EPOLLIN, .data.u32 = TIMER};
    char line[64];
    if (number != 7)
        fail("paced PORT CONNECTIONS RATE REQUEST FRAME REPLY_SIZE");
    port = atoi(arguments[1]);
    count = atol(arguments[2]);
    rate = atof(arguments[3]);
    request = from_hex(arguments[4], &request_size);
    frame = from_hex(arguments[5], &frame_size);
    reply_size = atol(arguments[6]);
    if (count < 1 || !(rate > 0) || reply_size < 1)
        fail("nothing to do");
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL); /* or the kernel wakes us up to 50 microseconds late */
#ifdef TLS
    context = SSL_CTX_new(TLS_client_method()); /* and whoever answers is trusted */
    if (!context)
        fail("no TLS");
#endif
    connections = allocate(count, sizeof *connections);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (epoll_fd < 0 || timer_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &timer))
        fail_of("epoll");
    open_all();
    const long *order = shuffled();
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        run(atof(line), order);
    return 0;
}
