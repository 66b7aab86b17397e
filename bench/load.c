/* Loads one POP3 or LMTP server on loopback from many connections, and checks every reply.
 *
 * Closed loop: each connection does one thing after another and waits for each reply, so the rate is what
 * the server gives. Connection i uses mailbox i (or, delivering, its own group of mailboxes), so that no two
 * connections ever want the same maildrop.
 *
 *   poll     connect, USER, PASS, STAT, UIDL, QUIT, close                              (one session)
 *   fetch    connect, USER, PASS, STAT, RETR 1..n, QUIT, close; the messages stay      (one session)
 *   deliver  RSET; MAIL, RCPT.., DATA in one write; the message; a reply per recipient (one message)
 *            on a connection that stays open, as Postfix does when it caches connections
 *
 * Standard output: the lines "begin" and "end" when the measured time begins and ends (for whoever samples the
 * server's CPU), then one line of JSON. Exit status: 0, also with errors (they are in the JSON); 2 for misuse.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { LINE_OCTETS = 78, LINES_SPARE = 64, CARRY = 2048, READ_OCTETS = 1 << 18, SAMPLES = 5, SAMPLE_OCTETS = 160 };
static const uint64_t STALLED = 60 * 1000000ull, RETRY_AFTER = 20 * 1000ull, DRAIN = 30 * 1000000ull; /* us */

enum scenario { POLL, FETCH, DELIVER };
enum step {
    RESTING, /* not connected */
    GREETING,
    USER, PASS, STAT, UIDL, UIDL_LINES, LIST, LIST_LINES, RETR, RETR_BODY, QUIT, /* POP3 */
    LHLO, RSET, ENVELOPE, ACCEPTANCE,                                            /* LMTP */
};
static const char *const STEPS[] = {"connecting", "greeting", "USER", "PASS", "STAT", "UIDL", "UIDL", "LIST", "LIST",
                                    "RETR", "RETR", "QUIT", "LHLO", "RSET", "envelope", "message"};

struct mailbox {
    char *name, *password;
};

struct connection {
    int fd;
    unsigned number;
    enum step step;
    uint64_t began, moved, retry_at; /* us */
    unsigned finished;               /* operations, all phases */

    unsigned messages, lines, at; /* the maildrop's count; lines of a listing so far; message being read */
    uint64_t total, octets;       /* the maildrop's octets; octets of the message being read, without stuffing */
    char before[2];               /* the two octets before the next one of a body */
    bool body_ended, sizes_known;
    uint64_t *sizes, sizes_total; /* from LIST in this connection's first session */
    unsigned sizes_count, sizes_room;

    unsigned replies; /* replies still awaited */
    bool takes_size;  /* announced in its reply to LHLO */
    bool used;        /* a message went over this LMTP connection: probe it with RSET before the next */

    struct iovec out[3];
    unsigned out_at, out_count;
    bool watching_out;
    char *text;      /* commands, and the head of a message */
    char tail[160];  /* last line of a message and the final dot */
    char carry[CARRY];
    size_t carried;
};

static struct {
    enum scenario scenario;
    const char *host, *port, *users;
    unsigned connections, recipients;
    double warmup, seconds;
    uint64_t octets, each;
    int cpu;
    long expected; /* messages in every maildrop; -1: whatever is there */
} options = {.host = "127.0.0.1", .connections = 50, .recipients = 1, .octets = 8192, .cpu = -1, .expected = -1};

static struct mailbox *mailboxes;
static size_t mailbox_count;
static struct connection *connections;
static struct sockaddr_storage server;
static socklen_t server_length;
static int epoll_fd;
static char *body; /* lines of noise; a message is a window on it */
static char *page; /* CARRY octets, then what is read */
static size_t text_room;
static uint64_t sequence, run_tag;

static enum { WARMING, MEASURING, DRAINING } phase = WARMING;
static bool by_count;
static uint64_t operations, octets_moved, errors, latencies_room;
static unsigned active;
static uint32_t *latencies; /* us, of measured operations */
static char samples[SAMPLES][SAMPLE_OCTETS];
static unsigned sample_count;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(2);
}

static void *need(void *memory) {
    if (!memory) die("out of memory");
    return memory;
}

/* ---- operations begin and end ---- */

static void hang_up(struct connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->step = RESTING;
    c->carried = c->out_at = c->out_count = 0;
    c->watching_out = c->used = false;
}

static void fail(struct connection *c, const char *format, ...) {
    char text[SAMPLE_OCTETS];
    int prefix = snprintf(text, sizeof text, "%s: ", STEPS[c->step]);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + prefix, sizeof text - (size_t)prefix, format, arguments);
    va_end(arguments);
    for (char *p = text; *p; p++)
        if (*p == '"' || *p == '\\' || *p < ' ' || *p > '~') *p = '?';
    errors++;
    bool known = false;
    for (unsigned i = 0; i < sample_count; i++) known |= !strcmp(samples[i], text);
    if (!known && sample_count < SAMPLES) strcpy(samples[sample_count++], text);
    hang_up(c);
    c->retry_at = now_us() + RETRY_AFTER;
}

static void record(struct connection *c, uint64_t octets) {
    c->finished++;
    if (phase != MEASURING) return;
    if (operations == latencies_room) {
        latencies_room = latencies_room ? latencies_room * 2 : 1 << 16;
        latencies = need(realloc(latencies, latencies_room * sizeof *latencies));
    }
    uint64_t took = now_us() - c->began;
    latencies[operations++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
    octets_moved += octets;
}

static bool may_begin(const struct connection *c) {
    return phase != DRAINING && !(by_count && c->finished >= options.each);
}

/* ---- writing ---- */

static void watch(struct connection *c, bool out) {
    if (c->watching_out == out) return;
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
    c->watching_out = out;
}

static void flush(struct connection *c) {
    while (c->out_at < c->out_count) {
        ssize_t n = writev(c->fd, c->out + c->out_at, (int)(c->out_count - c->out_at));
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) {
                watch(c, true);
                return;
            }
            fail(c, "%s", strerror(errno));
            return;
        }
        c->moved = now_us();
        while (n > 0) {
            struct iovec *v = &c->out[c->out_at];
            size_t taken = (size_t)n < v->iov_len ? (size_t)n : v->iov_len;
            v->iov_base = (char *)v->iov_base + taken;
            v->iov_len -= taken;
            n -= (ssize_t)taken;
            if (!v->iov_len) c->out_at++;
        }
    }
    watch(c, false);
}

static void say(struct connection *c, enum step next, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(c->text, text_room, format, arguments);
    va_end(arguments);
    c->out[0] = (struct iovec){c->text, (size_t)n};
    c->out_at = 0;
    c->out_count = 1;
    c->step = next;
    flush(c);
}

/* ---- POP3 ---- */

/* Counts the octets of a message, stuffing undone, up to its final dot. Looks at dots only: memchr skips the rest.
 * Returns how many octets are dealt with; fewer than given where the next octets must be known first. */
static size_t read_body(struct connection *c, const char *p, size_t n) {
    size_t at = 0, end = n;
    while (at < n) {
        const char *dot = memchr(p + at, '.', n - at);
        if (!dot) {
            c->octets += n - at;
            break;
        }
        size_t i = (size_t)(dot - p);
        char last = i >= 1 ? p[i - 1] : c->before[1];
        char last_but_one = i >= 2 ? p[i - 2] : c->before[i];
        c->octets += i - at;
        if (last_but_one != '\r' || last != '\n') {
            c->octets++;
            at = i + 1;
            continue;
        }
        size_t left = n - i;
        if (left == 1 || (left == 2 && p[i + 1] == '\r')) {
            end = i;
            break;
        }
        if (p[i + 1] == '\r' && p[i + 2] == '\n') {
            c->body_ended = true;
            end = i + 3;
            break;
        }
        if (p[i + 1] != '.') {
            fail(c, "message %u: a line begins with a dot that is not stuffed", c->at);
            return n;
        }
        c->octets++; /* the second dot; the first one is stuffing */
        at = i + 2;
    }
    if (end >= 2) memcpy(c->before, p + end - 2, 2);
    else if (end == 1) c->before[0] = c->before[1], c->before[1] = p[0];
    return end;
}

static void retrieve(struct connection *c) {
    c->at++;
    c->octets = 0;
    c->body_ended = false;
    memcpy(c->before, "\r\n", 2);
    say(c, RETR, "RETR %u\r\n", c->at);
}

static void message_read(struct connection *c) {
    if (c->octets != c->sizes[c->at - 1])
        fail(c, "message %u has %" PRIu64 " octets, LIST said %" PRIu64, c->at, c->octets, c->sizes[c->at - 1]);
    else if (c->at < c->messages) retrieve(c);
    else say(c, QUIT, "QUIT\r\n");
}

static void size_listed(struct connection *c, const char *line) {
    unsigned number;
    uint64_t size;
    if (sscanf(line, "%u %" SCNu64, &number, &size) != 2 || number != c->lines || number > c->messages) {
        fail(c, "expected message %u: %s", c->lines, line);
        return;
    }
    if (c->sizes_count == c->sizes_room) {
        c->sizes_room = c->sizes_room ? c->sizes_room * 2 : 64;
        c->sizes = need(realloc(c->sizes, c->sizes_room * sizeof *c->sizes));
    }
    c->sizes[c->sizes_count++] = size;
    c->sizes_total += size;
}

static void maildrop_described(struct connection *c) {
    if (options.expected >= 0 && c->messages != (unsigned long)options.expected) {
        fail(c, "%u messages instead of %ld", c->messages, options.expected);
        return;
    }
    if (options.scenario == POLL) say(c, UIDL, "UIDL\r\n");
    else if (!c->messages) fail(c, "nothing to fetch");
    else if (!c->sizes_known) say(c, LIST, "LIST\r\n");
    else if (c->sizes_count != c->messages || c->sizes_total != c->total)
        fail(c, "%u %" PRIu64 " instead of %u %" PRIu64, c->messages, c->total, c->sizes_count, c->sizes_total);
    else c->at = 0, retrieve(c);
}

static void session_over(struct connection *c) {
    record(c, options.scenario == FETCH ? c->total : 0);
    hang_up(c);
}

static void pop3_line(struct connection *c, char *line) {
    const struct mailbox *m = &mailboxes[c->number];
    if (c->step == UIDL_LINES || c->step == LIST_LINES) {
        bool sizes = c->step == LIST_LINES;
        if (strcmp(line, ".")) {
            c->lines++;
            unsigned number;
            char id[72];
            if (sizes) size_listed(c, line);
            else if (sscanf(line, "%u %71s", &number, id) != 2 || number != c->lines)
                fail(c, "expected message %u: %s", c->lines, line);
        } else if (c->lines != c->messages) fail(c, "%u lines for %u messages", c->lines, c->messages);
        else if (!sizes) say(c, QUIT, "QUIT\r\n");
        else if (c->sizes_total != c->total) fail(c, "sum %" PRIu64 ", STAT said %" PRIu64, c->sizes_total, c->total);
        else c->sizes_known = true, c->at = 0, retrieve(c);
        return;
    }
    if (strncmp(line, "+OK", 3)) {
        fail(c, "%s", line);
        return;
    }
    switch (c->step) {
    case GREETING: say(c, USER, "USER %s\r\n", m->name); break;
    case USER: say(c, PASS, "PASS %s\r\n", m->password); break;
    case PASS: say(c, STAT, "STAT\r\n"); break;
    case STAT:
        if (sscanf(line, "+OK %u %" SCNu64, &c->messages, &c->total) != 2) fail(c, "%s", line);
        else maildrop_described(c);
        break;
    case UIDL: c->lines = 0, c->step = UIDL_LINES; break;
    case LIST: c->lines = c->sizes_count = 0, c->sizes_total = 0, c->step = LIST_LINES; break;
    case RETR: c->step = RETR_BODY; break;
    case QUIT: session_over(c); break;
    default: fail(c, "not asked for: %s", line);
    }
}

/* ---- LMTP ---- */

static void begin_envelope(struct connection *c) {
    size_t first = (size_t)c->number * options.recipients;
    int n = snprintf(c->text, text_room, "MAIL FROM:<sender@bench.example>");
    if (c->takes_size) n += snprintf(c->text + n, text_room - (size_t)n, " SIZE=%" PRIu64, options.octets);
    n += snprintf(c->text + n, text_room - (size_t)n, "\r\n");
    for (unsigned i = 0; i < options.recipients; i++)
        n += snprintf(c->text + n, text_room - (size_t)n, "RCPT TO:<%s>\r\n", mailboxes[first + i].name);
    n += snprintf(c->text + n, text_room - (size_t)n, "DATA\r\n");
    c->out[0] = (struct iovec){c->text, (size_t)n};
    c->out_at = 0;
    c->out_count = 1;
    c->replies = options.recipients + 2;
    c->step = ENVELOPE;
    flush(c);
}

static void begin_message(struct connection *c) {
    c->began = now_us();
    if (c->used) say(c, RSET, "RSET\r\n");
    else begin_envelope(c);
}

/* The message: a head of its own, a window on the noise, a last line that makes the octets exact. One message in twenty
 * has a line that begins with a dot. */
static void send_message(struct connection *c) {
    uint64_t id = ++sequence;
    bool dotted = id % 20 == 0;
    int n = snprintf(c->text, text_room,
                     "Received: from client.example (client.example [192.0.2.1])\r\n"
                     "\tby mx.bench.example (Postfix) with ESMTP id %016" PRIX64 "%010" PRIX64 "\r\n"
                     "\tfor <%s>; Mon, 03 Nov 2025 08:00:00 +0000 (UTC)\r\n"
                     "Message-ID: <%016" PRIX64 ".%" PRIu64 "@client.example>\r\n"
                     "Date: Mon, 03 Nov 2025 08:00:00 +0000\r\n"
                     "From: Sender <sender@bench.example>\r\n"
                     "To: Recipient <%s>\r\n"
                     "Subject: Bench message %" PRIu64 "\r\n"
                     "MIME-Version: 1.0\r\n"
                     "Content-Type: text/plain; charset=us-ascii\r\n"
                     "\r\n"
                     "%sThis line stands before the noise.\r\n",
                     run_tag, id, mailboxes[(size_t)c->number * options.recipients].name, run_tag, id,
                     mailboxes[(size_t)c->number * options.recipients].name, id, dotted ? ".." : "");
    uint64_t left = options.octets - (uint64_t)(n - (dotted ? 1 : 0));
    uint64_t rest = left % LINE_OCTETS;
    if (rest == 1) rest += LINE_OCTETS; /* no line is one octet long */
    char *tail = c->tail;
    if (rest) {
        memset(tail, 'z', rest - 2);
        memcpy(tail + rest - 2, "\r\n", 2);
    }
    memcpy(tail + rest, ".\r\n", 3);
    c->out[0] = (struct iovec){c->text, (size_t)n};
    c->out[1] = (struct iovec){body + (id % LINES_SPARE) * LINE_OCTETS, left - rest};
    c->out[2] = (struct iovec){tail, rest + 3};
    c->out_at = 0;
    c->out_count = 3;
    c->replies = options.recipients;
    c->step = ACCEPTANCE;
    flush(c);
}

static void lmtp_line(struct connection *c, char *line) {
    bool data = c->step == ENVELOPE && c->replies == 1;
    const char *wanted = c->step == GREETING ? "220" : data ? "354" : "250";
    if (strncmp(line, wanted, 3) || (line[3] != ' ' && line[3] != '-' && line[3])) {
        fail(c, "%s", line);
        return;
    }
    if (c->step == LHLO && strlen(line) >= 8 && !strncasecmp(line + 4, "SIZE", 4)) c->takes_size = true;
    if (line[3] == '-') return;
    switch (c->step) {
    case GREETING: say(c, LHLO, "LHLO mx.bench.example\r\n"); break;
    case LHLO: begin_message(c); break;
    case RSET: begin_envelope(c); break;
    case ENVELOPE:
        if (!--c->replies) send_message(c);
        break;
    case ACCEPTANCE:
        if (--c->replies) break;
        record(c, options.octets);
        c->used = true;
        if (may_begin(c)) begin_message(c);
        else hang_up(c);
        break;
    default: fail(c, "not asked for: %s", line);
    }
}

/* ---- connections ---- */

static void go(struct connection *c) {
    c->fd = socket(server.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->began = c->moved = now_us();
    if (connect(c->fd, (struct sockaddr *)&server, server_length) && errno != EINPROGRESS) {
        fail(c, "%s", strerror(errno));
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
    c->step = GREETING;
}

static void take(struct connection *c, char *p, size_t n) {
    while (n && c->step != RESTING) {
        if (c->step == RETR_BODY) {
            size_t used = read_body(c, p, n);
            if (c->step == RESTING) return;
            p += used, n -= used;
            if (c->body_ended) {
                if (n) fail(c, "more than was asked for");
                else message_read(c);
                return;
            }
            break;
        }
        char *end = memchr(p, '\n', n);
        if (!end) break;
        size_t length = (size_t)(end - p);
        if (!length || end[-1] != '\r') {
            fail(c, "a line that does not end in CRLF");
            return;
        }
        end[-1] = 0;
        char *line = p;
        p = end + 1, n -= length + 1;
        enum step before = c->step;
        if (options.scenario == DELIVER) lmtp_line(c, line);
        else pop3_line(c, line);
        /* whoever has just been asked something cannot have answered already */
        bool more_follows = c->step == before || c->step == RETR_BODY || c->step == UIDL_LINES || c->step == LIST_LINES;
        if (n && c->step != RESTING && !more_follows) {
            fail(c, "more than was asked for");
            return;
        }
    }
    if (c->step == RESTING) return;
    if (n > CARRY) {
        fail(c, "a line of more than %d octets", CARRY);
        return;
    }
    memmove(c->carry, p, n);
    c->carried = n;
}

static void readable(struct connection *c) {
    char *start = page + CARRY - c->carried;
    memcpy(start, c->carry, c->carried);
    ssize_t n = read(c->fd, page + CARRY, READ_OCTETS);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) fail(c, "%s", strerror(errno));
        return;
    }
    if (!n) {
        fail(c, "closed by the server");
        return;
    }
    c->moved = now_us();
    size_t have = c->carried + (size_t)n;
    c->carried = 0;
    take(c, start, have);
}

/* ---- the run ---- */

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile_ms(double q) {
    if (!operations) return 0;
    uint64_t i = (uint64_t)(q * (double)operations);
    return latencies[i < operations ? i : operations - 1] / 1e3;
}

static void announce(const char *what) {
    puts(what);
    fflush(stdout);
}

/* Starts what may start and drops what stalls. Returns how many connections are busy. */
static unsigned tend(uint64_t now) {
    unsigned busy = 0;
    for (unsigned i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        if (c->step == RESTING && now >= c->retry_at && may_begin(c)) go(c);
        else if (c->step != RESTING && c->moved + STALLED < now) fail(c, "no progress for 60 s");
        busy += c->step != RESTING || may_begin(c);
    }
    return busy;
}

static void run(void) {
    uint64_t start = now_us(), measure = start + (uint64_t)(options.warmup * 1e6);
    uint64_t stop = 0, began = start, ended = 0;
    double cpu_began = cpu_seconds(), cpu_ended = cpu_began;
    struct epoll_event events[256];
    for (;;) {
        uint64_t now = now_us();
        if (phase == WARMING && (by_count || now >= measure)) {
            phase = MEASURING;
            began = now;
            stop = now + (uint64_t)(options.seconds * 1e6);
            cpu_began = cpu_seconds();
            announce("begin");
        }
        active = tend(now);
        if (phase == MEASURING && (by_count ? !active : now >= stop)) {
            phase = DRAINING;
            ended = now;
            cpu_ended = cpu_seconds();
            announce("end");
            active = tend(now);
        }
        if (phase == DRAINING && (!active || now > ended + DRAIN)) break;
        if (errors > 1000 + operations) break; /* nothing works: say so now */
        int n = epoll_wait(epoll_fd, events, 256, 5);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->step == RESTING) continue;
            if (events[i].events & EPOLLOUT) flush(c);
            if (c->step != RESTING && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
            if (c->step == RESTING && now_us() >= c->retry_at && may_begin(c)) go(c);
        }
    }
    if (!ended) ended = now_us(), cpu_ended = cpu_seconds(), announce("end");
    if (operations) qsort(latencies, operations, sizeof *latencies, ascending);
    printf("{\"seconds\": %.6f, \"operations\": %" PRIu64 ", \"octets\": %" PRIu64 ", \"errors\": %" PRIu64
           ", \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"generator_cpu_seconds\": %.6f"
           ", \"connections\": %u, \"error_samples\": [",
           (double)(ended - began) / 1e6, operations, octets_moved, errors, quantile_ms(.5), quantile_ms(.99),
           quantile_ms(1), cpu_ended - cpu_began, options.connections);
    for (unsigned i = 0; i < sample_count; i++) printf("%s\"%s\"", i ? ", " : "", samples[i]);
    puts("]}");
}

static void read_users(void) {
    FILE *file = fopen(options.users, "r");
    if (!file) die("%s: %s", options.users, strerror(errno));
    char name[512], password[512], line[1200];
    size_t room = 0;
    while (fgets(line, sizeof line, file)) {
        int n = sscanf(line, "%511s %511s", name, password);
        if (n < 1) continue;
        if (mailbox_count == room) {
            room = room ? room * 2 : 256;
            mailboxes = need(realloc(mailboxes, room * sizeof *mailboxes));
        }
        mailboxes[mailbox_count++] =
            (struct mailbox){need(strdup(name)), need(strdup(n == 2 ? password : ""))};
    }
    fclose(file);
}

static void find_server(void) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(options.host, options.port, &hints, &found)) die("%s: not a numeric address", options.host);
    bool loopback = false;
    if (found->ai_family == AF_INET)
        loopback = ntohl(((struct sockaddr_in *)found->ai_addr)->sin_addr.s_addr) >> 24 == 127;
    else if (found->ai_family == AF_INET6)
        loopback = IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr);
    if (!loopback) die("%s: loads loopback only", options.host);
    memcpy(&server, found->ai_addr, found->ai_addrlen);
    server_length = found->ai_addrlen;
    freeaddrinfo(found);
}

static void make_noise(void) {
    static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t lines = options.octets / LINE_OCTETS + LINES_SPARE + 1;
    body = need(malloc(lines * LINE_OCTETS));
    uint64_t x = 88172645463325252ull;
    for (size_t i = 0; i < lines * LINE_OCTETS; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        body[i] = ALPHABET[x >> 58];
    }
    for (size_t i = 1; i <= lines; i++) memcpy(body + i * LINE_OCTETS - 2, "\r\n", 2);
}

static double number(const char *name, const char *text, double least, double most) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most)) die("--%s %s: %g to %g", name, text, least, most);
    return value;
}

int main(int argc, char **argv) {
    static const struct option OPTIONS[] = {
        {"host", 1, 0, 'h'},       {"port", 1, 0, 'p'},   {"users", 1, 0, 'u'},      {"connections", 1, 0, 'c'},
        {"warmup", 1, 0, 'w'},     {"seconds", 1, 0, 's'}, {"each", 1, 0, 'e'},      {"octets", 1, 0, 'o'},
        {"recipients", 1, 0, 'r'}, {"cpu", 1, 0, 'k'},    {"messages", 1, 0, 'm'},   {0, 0, 0, 0}};
    if (argc < 2) die("poll | fetch | deliver --port N --users FILE (--seconds N | --each N) ...");
    if (!strcmp(argv[1], "poll")) options.scenario = POLL;
    else if (!strcmp(argv[1], "fetch")) options.scenario = FETCH;
    else if (!strcmp(argv[1], "deliver")) options.scenario = DELIVER;
    else die("%s: not one of poll, fetch, deliver", argv[1]);
    optind = 2;
    for (int o; (o = getopt_long(argc, argv, "", OPTIONS, 0)) != -1;) switch (o) {
        case 'h': options.host = optarg; break;
        case 'p': options.port = optarg; break;
        case 'u': options.users = optarg; break;
        case 'c': options.connections = (unsigned)number("connections", optarg, 1, 10000); break;
        case 'w': options.warmup = number("warmup", optarg, 0, 3600); break;
        case 's': options.seconds = number("seconds", optarg, 0.01, 86400); break;
        case 'e': options.each = (uint64_t)number("each", optarg, 1, 1e9); break;
        case 'o': options.octets = (uint64_t)number("octets", optarg, 2048, 1e9); break;
        case 'r': options.recipients = (unsigned)number("recipients", optarg, 1, 1000); break;
        case 'k': options.cpu = (int)number("cpu", optarg, 0, 1023); break;
        case 'm': options.expected = (long)number("messages", optarg, 0, 1e9); break;
        default: exit(2);
        }
    if (!options.port || !options.users) die("--port and --users are needed");
    if (!options.seconds == !options.each) die("either --seconds or --each");
    by_count = options.each > 0;
    find_server();
    read_users();
    if (mailbox_count < (size_t)options.connections * (options.scenario == DELIVER ? options.recipients : 1))
        die("%s: %zu mailboxes are too few", options.users, mailbox_count);
    if (options.cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(options.cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set)) die("--cpu %d: %s", options.cpu, strerror(errno));
    }
    signal(SIGPIPE, SIG_IGN);
    run_tag = (uint64_t)time(0) << 20 ^ (uint64_t)getpid();
    text_room = 4096 + (size_t)options.recipients * 600;
    page = need(malloc(CARRY + READ_OCTETS));
    make_noise();
    connections = need(calloc(options.connections, sizeof *connections));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < options.connections; i++) {
        connections[i].number = i;
        connections[i].fd = -1;
        connections[i].text = need(malloc(text_room));
    }
    run();
    return 0;
}
