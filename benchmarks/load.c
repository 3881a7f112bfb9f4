/* The load in C: raw sockets, epoll, one thread, bytes that were made beforehand.

   It does what the loads in Python do, for less. benchmarks/load_in_c.py builds it, starts it, and
   tells it all that it knows:

       load PORT CONNECTIONS RATE IN_FLIGHT REQUEST_SIZE FRAME_SIZE REPLY_SIZE

   On stdin come REQUEST_SIZE bytes, the head of the opening request (0 stands for no handshake), and
   FRAME_SIZE bytes, which are sent each time. It opens the connections and says "ready". For each
   line after that, a number of seconds, it runs for that long and says, as one line of JSON, what it
   saw; times are microseconds. At the end of stdin it ends.

   With a RATE it sends as many messages a second on each connection, at fixed times. With RATE 0 it
   keeps IN_FLIGHT of them under way on each. Built with -DTLS, it speaks TLS. */

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
#include <openssl/ssl.h>
#endif

enum {
    PATIENCE = 30, /* seconds; nothing takes this long, what does is broken */
    BATCH = 50,    /* connections that are opened at once: a listener's backlog holds these */
    EVENTS = 256,
    TIMER = INT32_MAX
};

static const int64_t SECOND = 1000000000;

struct connection {
    int fd;
#ifdef TLS
    SSL *tls;
#endif
    long place;      /* of its first message in the order of sending, paced */
    long echoes;     /* that came in this run */
    long unfinished; /* bytes that came of the next one */
    long unsent;     /* bytes that are still to be sent */
    long offset;     /* in the frame, of the next byte to be sent */
    bool is_full;    /* and we wait until it takes more */
};

static struct connection *connections;
static long count, in_flight, request_size, frame_size, reply_size;
static double rate;
static uint8_t *request, *frames; /* the latter as often as they are in flight */
static int port, epoll_fd, timer_fd;
static uint8_t buffer[1 << 20]; /* for what comes, which is never looked at */

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
    void *memory = calloc(number ? number : 1, size);
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

/* --------------------------------------------------------------- Bytes, plain or over TLS */

/* How many were sent or came: 0 where that would have to wait. */
#ifdef TLS
static SSL_CTX *context;

static void start_tls(struct connection *one)
{
    one->tls = SSL_new(context);
    if (!one->tls || !SSL_set_fd(one->tls, one->fd) || SSL_connect(one->tls) != 1)
        fail("the TLS handshake failed");
}

static long came_of(struct connection *one, int size)
{
    if (size > 0)
        return size;
    int error = SSL_get_error(one->tls, size);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        fail("a connection ended");
    return 0;
}

static long send_some(struct connection *one, const uint8_t *bytes, long size)
{
    return came_of(one, SSL_write(one->tls, bytes, size));
}

static long receive_some(struct connection *one)
{
    return came_of(one, SSL_read(one->tls, buffer, sizeof buffer));
}
#else
static long came_of(ssize_t size)
{
    if (size > 0)
        return size;
    if (size == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        fail("a connection ended");
    return 0;
}

static long send_some(struct connection *one, const uint8_t *bytes, long size)
{
    return came_of(send(one->fd, bytes, size, 0));
}

static long receive_some(struct connection *one)
{
    return came_of(recv(one->fd, buffer, sizeof buffer, 0));
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
    if (request_size && send_some(one, request, request_size) != request_size)
        fail("the server did not take the request");
}

static void read_response(struct connection *one)
{
    static const char expected[] = "HTTP/1.1 101";
    char head[4096];
    long size = 0;
    while (size < 4 || memcmp(head + size - 4, "\r\n\r\n", 4)) {
        long came = receive_some(one);
        if (!came || size + came > (long)sizeof head)
            fail("no response came that makes sense");
        memcpy(head + size, buffer, came);
        size += came;
    }
    if (size < (long)sizeof expected || memcmp(head, expected, sizeof expected - 1))
        fail("the server refused");
}

static void watch(long number, int operation, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.u32 = number};
    int fd = number == TIMER ? timer_fd : connections[number].fd;
    if (epoll_ctl(epoll_fd, operation, fd, &event))
        fail_of("epoll_ctl");
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
        fcntl(connections[i].fd, F_SETFL, O_NONBLOCK);
        watch(i, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* --------------------------------------------------------------------- Sending, receiving */

static void flush(struct connection *one)
{
    while (one->unsent) {
        long rest = in_flight * frame_size - one->offset;
        long sent = send_some(one, frames + one->offset, one->unsent < rest ? one->unsent : rest);
        if (!sent)
            break;
        one->unsent -= sent;
        one->offset = (one->offset + sent) % frame_size;
    }
    if (one->is_full != (one->unsent > 0)) {
        one->is_full = !one->is_full;
        watch(one - connections, EPOLL_CTL_MOD, one->is_full ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

static void send_messages(struct connection *one, long number)
{
    one->unsent += number * frame_size;
    flush(one);
}

/* How many echoes are complete now. */
static long receive(struct connection *one)
{
    for (long came; (came = receive_some(one));) {
        one->unfinished += came;
#ifndef TLS
        if (came < (long)sizeof buffer)
            break; /* there is no more, and to ask would cost a call */
#endif
    }
    long done = one->unfinished / reply_size;
    one->unfinished %= reply_size;
    return done;
}

static int wait_for(struct epoll_event *events)
{
    int ready;
    do
        ready = epoll_wait(epoll_fd, events, EVENTS, PATIENCE * 1000);
    while (ready < 0 && errno == EINTR);
    if (ready < 0)
        fail_of("epoll_wait");
    if (ready == 0)
        fail("nothing came");
    return ready;
}

/* ------------------------------------------------------------------------------ In flight */

/* It goes on until each connection has had two echoes or so, however short it is to be: a server may
   well take what all have sent before it answers the first. And it stops with an echo, so that no
   part of one is lost. */
static void run_in_flight(double seconds)
{
    static bool has_begun;
    struct epoll_event events[EVENTS];
    long received = 0, enough = count > 1 ? 2 * count : 1;
    if (!has_begun)
        for (long i = 0; i < count; i++)
            send_messages(&connections[i], in_flight);
    has_begun = true;

    int64_t start = now(), end = start + (int64_t)(seconds * SECOND), last = start;
    while (last < end || received < enough) {
        int ready = wait_for(events);
        long before = received;
        for (int i = 0; i < ready; i++) {
            struct connection *one = &connections[events[i].data.u32];
            long done = events[i].events & ~EPOLLOUT ? receive(one) : 0;
            received += done;
            if (done)
                send_messages(one, done);
            else if (one->unsent)
                flush(one);
        }
        if (received > before)
            last = now();
    }
    printf("{\"messages\": %ld, \"seconds\": %.6f}\n", received, (last - start) / 1e9);
}

/* ---------------------------------------------------------------------------------- Paced */

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

/* At 0, never. */
static void set_timer(int64_t time)
{
    struct itimerspec setting = {
        .it_value = {.tv_sec = time / SECOND, .tv_nsec = time % SECOND},
    };
    if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &setting, NULL))
        fail_of("timerfd_settime");
}

/* The messages are sent at equal distances, in turn on each connection, whether echoes come or not.
   Latency is from a message's sending; how late that was is kept apart, for it is our own doing. */
static void run_paced(double seconds, const long *order)
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

    int64_t start = now(), last = start;
    set_timer(start);
    while (received < number) {
        int ready = wait_for(events);
        bool is_time = false;
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u32 == TIMER) {
                is_time = true;
                continue;
            }
            struct connection *one = &connections[events[i].data.u32];
            for (long done = receive(one); done; done--) {
                long message = one->place + one->echoes++ * count;
                if (message >= sent)
                    fail("more came than was sent");
                last = now();
                latencies[received++] = last - sent_at[message];
            }
            if (one->unsent)
                flush(one);
        }
        if (!is_time)
            continue;
        int64_t time = now(), due = 0;
        for (; sent < number && (due = start + (int64_t)(sent * distance)) <= time; sent++) {
            sent_at[sent] = time = now();
            late[sent] = time - due;
            send_messages(&connections[order[sent % count]], 1);
        }
        set_timer(sent < number ? due : 0);
    }
    qsort(latencies, number, sizeof *latencies, compare);
    qsort(late, number, sizeof *late, compare);
    printf("{\"messages\": %ld, \"seconds\": %.6f,"
           " \"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"late\": %.1f}\n",
           number, (last - start) / 1e9, percentile(latencies, number, 0.5),
           percentile(latencies, number, 0.99), percentile(latencies, number, 0.999),
           percentile(late, number, 0.99));
    free(sent_at);
    free(latencies);
    free(late);
}

/* ------------------------------------------------------------------------------ The whole */

static void read_input(uint8_t *bytes, long size)
{
    if (size && fread(bytes, 1, size, stdin) != (size_t)size)
        fail("stdin ended early");
}

static void prepare(char **arguments)
{
    port = atoi(arguments[1]);
    count = atol(arguments[2]);
    rate = atof(arguments[3]);
    in_flight = atol(arguments[4]);
    request_size = atol(arguments[5]);
    frame_size = atol(arguments[6]);
    reply_size = atol(arguments[7]);
    if (count < 1 || rate < 0 || in_flight < 1 || frame_size < 1 || reply_size < 1)
        fail("nothing to do");
    request = allocate(request_size, 1);
    frames = allocate(in_flight, frame_size);
    connections = allocate(count, sizeof *connections);
    read_input(request, request_size);
    read_input(frames, frame_size);
    for (long i = 1; i < in_flight; i++)
        memcpy(frames + i * frame_size, frames, frame_size);
}

int main(int number, char **arguments)
{
    char line[64];
    if (number != 8)
        fail("load PORT CONNECTIONS RATE IN_FLIGHT REQUEST_SIZE FRAME_SIZE REPLY_SIZE");
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL); /* or the kernel wakes us up to 50 microseconds late */
#ifdef TLS
    context = SSL_CTX_new(TLS_client_method()); /* and whoever answers is trusted */
    if (!context)
        fail("no TLS");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#endif
    prepare(arguments);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (epoll_fd < 0 || timer_fd < 0)
        fail_of("epoll");
    watch(TIMER, EPOLL_CTL_ADD, EPOLLIN);
    open_all();
    const long *order = shuffled();
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (rate > 0)
            run_paced(atof(line), order);
        else
            run_in_flight(atof(line));
        fflush(stdout);
    }
    return 0;
}
