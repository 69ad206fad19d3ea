/* maqet-exec: runs commands in a guest for the host, quickly also under emulation.
 *
 *   gcc -Os -static -nostdlib -ffreestanding -fno-builtin -fno-stack-protector -fno-pie -no-pie
 *       -fno-asynchronous-unwind-tables -fcf-protection=none -Wl,--build-id=none -Wl,-z,norelro
 *       -Wl,-z,noseparate-code -s maqet-exec.c -o maqet-exec
 *
 *   maqet-exec PORT      serves a virtio serial port for ever
 *   maqet-exec --fd N    serves a socket that it was given, until its other end is closed
 *
 * Both sides send frames, numbers in little-endian:
 *    0  4  "MQE1", the last being the version
 *    4  4  session: a number that the host chooses for each connection
 *    8  4  command: a number that the host chooses for each command
 *   12  2  length of the data that follow, at most 16384
 *   14  1  type
 *   15  1  flags
 *
 * From the host:                                      To the host:
 *    HELLO  command is the session, inverted             WELCOME  the answer to HELLO, likewise
 *    RUN    arguments, each with a zero at its end;      OUT ERR  a piece of the command's output
 *           MORE: the next RUN goes on with them;        EXIT     4 bytes status, 4 bytes errno when it could
 *           HAS_INPUT: pieces of its input follow;                not be started: the command is over
 *           IN_SHELL: as if a shell had started it,
 *           SHLVL is one more
 *    INPUT  a piece of the input; empty: its end         TOOK     4 bytes: so many bytes of input have room
 *    KILL   SIGKILL for the command's process group               again; all ones: it reads no more
 *    DROP   nobody wants to know any more                PROCESS  4 bytes: it was started, its process id
 *
 * HELLO ends what an earlier session had: its commands go on with closed pipes, as they do when the host hangs
 * up. Frames of another session are skipped, and so is what is no frame, byte by byte. The rest of a frame that
 * an earlier host did not finish may swallow a HELLO: a host that hears nothing sends so many zeros first that
 * no frame is left open.
 *
 * A command is over when it has ended and its outputs are closed. It is the leader of a session, has no
 * descriptors but 0, 1 and 2, no signal blocked or ignored, and the environment and directory of this program.
 * Input is kept up to 65536 bytes for each command, and the host counts what TOOK gives back. Output is read
 * from a command when there is room to send it. Memory is fixed; pages that nobody used are not there.
 *
 * Exit status: 0 when the port is unplugged or the socket closed, 1 when there is none, 2 for wrong usage.
 *
 * Facts: Linux drivers/char/virtio_console.c. While no host is connected read returns 0 at once and poll tells
 * of a hang-up, so neither can wait for one; but the driver sends SIGIO when the host connects. A write takes
 * 32 KiB at most. vfork(2): the child borrows our memory until it has become the command, which also brings its
 * errno back. pipe(7), signalfd(2), execve(2), syscalls(2); PATH is searched as execvp(3) does.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum {
    SYS_read = 0, SYS_write = 1, SYS_open = 2, SYS_close = 3, SYS_poll = 7, SYS_rt_sigaction = 13,
    SYS_rt_sigprocmask = 14, SYS_dup2 = 33, SYS_getpid = 39, SYS_execve = 59, SYS_exit = 60, SYS_wait4 = 61,
    SYS_kill = 62, SYS_fcntl = 72, SYS_setsid = 112, SYS_signalfd4 = 289, SYS_pipe2 = 293
};
enum {
    ENOENT = 2, EINTR = 4, E2BIG = 7, ENOEXEC = 8, EAGAIN = 11, EACCES = 13, ENOTDIR = 20, ENODEV = 19,
    ENAMETOOLONG = 36
};
enum { SIGKILL = 9, SIGPIPE = 13, SIGCHLD = 17, SIGIO = 29, SIGNALS = 64 };
enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16 };
enum { O_RDWR = 2, O_NOCTTY = 0x100, O_NONBLOCK = 0x800, O_ASYNC = 0x2000, O_CLOEXEC = 0x80000 };
enum { F_GETFL = 3, F_SETFL = 4, F_SETOWN = 8, F_DUPFD_CLOEXEC = 1030, WNOHANG = 1 };

#define MAGIC 0x3145514dU /* "MQE1" */

enum { HELLO = 1, RUN, INPUT, KILL, DROP, WELCOME = 0x81, OUT, ERR, EXIT, TOOK, PROCESS };
enum { MORE = 1, HAS_INPUT = 2, IN_SHELL = 4 };
enum {
    SLOTS = 16,
    LONGEST = 16384,           /* data of a frame */
    ROOM = 65536,              /* input kept for a command */
    ARGUMENTS = 256 * 1024,    /* bytes of arguments of one command */
    WORDS = 32 * 1024,         /* and how many */
    CONTROL = 1024,            /* of the buffer to the host, kept free of output */
    LEAST = 512,               /* output is read in no smaller pieces */
    SENDING = 32 * 1024
};

struct frame { u32 magic, session, command; u16 length; u8 type, flags; };
struct pollfd { int fd; short events, revents; };

struct command {
    u8 used, reaped, in_ends, dropped_input;
    u32 number;
    int pid, in, out, err;     /* descriptors are 0 when closed */
    int status;
    u32 start, count, owed;    /* input in its ring; what TOOK has not told yet */
    u8 ring[ROOM];
};

static struct command commands[SLOTS];
static u8 received[sizeof(struct frame) + LONGEST];
static u32 have;
static u8 sending[SENDING];
static u32 sent, filled;
static u8 arguments[ARGUMENTS];
static u32 argument_bytes;
static u8 too_many;
static char *words[WORDS + 2];
static char path_name[4096 + 256];
static u8 child_stack[32 * 1024] __attribute__((aligned(16)));
static char **environment, **environment_in_shell, **environment_now;
static u32 session;
static u8 connected, greeted, is_socket, stalled;
static int port, children, arrivals;
static u32 turn;

static long call(long n, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
#define CALL(n, a, b, c) call(SYS_##n, (long)(a), (long)(b), (long)(c), 0)

void *memcpy(void *to, const void *from, u64 n)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

/* Only towards lower addresses, which rep movsb does right. */
static void move_down(u8 *to, const u8 *from, u32 n) { memcpy(to, from, n); }

static u32 length_of(const char *text)
{
    u32 n = 0;
    while (text[n]) n++;
    return n;
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

static void end(int status) { for (;;) CALL(exit, status, 0, 0); }

static void complain(const char *text, int status)
{
    CALL(write, 2, text, length_of(text));
    end(status);
}

static void shut(int *fd)
{
    if (*fd > 0) CALL(close, *fd, 0, 0);
    *fd = 0;
}

/* -- to the host ------------------------------------------------------------------------------------------- */

static u32 room_to_send(void)
{
    if (sent == filled) sent = filled = 0;
    if (sent) {
        move_down(sending, sending + sent, filled - sent);
        filled -= sent;
        sent = 0;
    }
    return SENDING - filled;
}

static void put_frame(u32 number, u8 type, u16 length)
{
    struct frame frame = { MAGIC, session, number, length, type, 0 };
    memcpy(sending + filled, &frame, sizeof frame);
    filled += sizeof frame + length;
}

static void tell(u32 number, u8 type, u32 a, u32 b, u16 length)
{
    u32 data[2] = { a, b };
    memcpy(sending + filled + sizeof(struct frame), data, length);
    put_frame(number, type, length);
}

static void flush(void)
{
    while (sent < filled) {
        long n = CALL(write, port, sending + sent, filled - sent);
        if (n <= 0) return;
        sent += n;
    }
}

/* -- commands ---------------------------------------------------------------------------------------------- */

static struct command *find(u32 number)
{
    for (struct command *c = commands; c < commands + SLOTS; c++)
        if (c->used && c->number == number) return c;
    return 0;
}

static void forget(struct command *c)
{
    shut(&c->in);
    shut(&c->out);
    shut(&c->err);
    c->used = 0;
}

static void forget_all(void)
{
    for (struct command *c = commands; c < commands + SLOTS; c++)
        if (c->used) forget(c);
    sent = filled = 0;
    argument_bytes = too_many = 0;
}

struct start { int in, out, err; volatile int error; };

/* Returns only when it failed: the errno. */
static int become(const char *file)
{
    long error = -CALL(execve, file, words + 1, environment_now);
    if (error == ENOEXEC) {                 /* a script without #!: words[0] is kept free for its shell */
        words[1] = (char *)file;
        words[0] = "/bin/sh";
        error = -CALL(execve, words[0], words, environment_now);
    }
    return error;
}

static int search(const char *name)
{
    const char *path = "/bin:/usr/bin";
    int denied = 0;
    u32 size = length_of(name);
    for (const char *c = name; *c; c++)
        if (*c == '/') return become(name);
    if (!size) return ENOENT;
    if (size > 255) return ENAMETOOLONG;
    for (char **e = environment; *e; e++) {
        u32 head; memcpy(&head, "PATH", 4);
        u32 found = 0;
        if (length_of(*e) >= 5) memcpy(&found, *e, 4);
        if (found == head && (*e)[4] == '=') path = *e + 5;
    }
    for (;;) {
        u32 n = 0;
        while (path[n] && path[n] != ':') n++;
        if (n < 4096) {
            memcpy(path_name, path, n);
            u32 at = n;
            if (n) path_name[at++] = '/';
            memcpy(path_name + at, name, size + 1);
            int error = become(path_name);
            if (error == EACCES) denied = 1;
            else if (error != ENOENT && error != ENOTDIR) return error;
        }
        if (!path[n]) return denied ? EACCES : ENOENT;
        path += n + 1;
    }
}

static void child(struct start *s)
{
    u64 none = 0;
    CALL(setsid, 0, 0, 0);
    CALL(dup2, s->in, 0, 0);
    CALL(dup2, s->out, 1, 0);
    CALL(dup2, s->err, 2, 0);
    call(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&none, 0, 8);
    s->error = search(words[1]);
    end(127);
}

/* clone(CLONE_VM | CLONE_VFORK | SIGCHLD): it has a stack of its own, and we wait until it has become another. */
static long spawn(struct start *s)
{
    long result;
    register long r10 __asm__("r10") = 0;
    register struct start *r12 __asm__("r12") = s;
    __asm__ volatile(
        "syscall\n\t"
        "test %%rax, %%rax\n\t"
        "jnz 1f\n\t"
        "mov %%r12, %%rdi\n\t"
        "call *%[entry]\n\t"
        "hlt\n"
        "1:"
        : "=a"(result)
        : "a"(56L), "D"(0x4100L | SIGCHLD), "S"(child_stack + sizeof child_stack), "d"(0L), "r"(r10), "r"(r12),
          [entry] "r"(child)
        : "rcx", "r11", "memory");
    return result;
}

static int split_arguments(void)
{
    u32 count = 1, begin = 0;
    if (too_many || !argument_bytes || arguments[argument_bytes - 1]) return E2BIG;
    for (u32 i = 0; i < argument_bytes; i++)
        if (!arguments[i]) {
            if (count > WORDS) return E2BIG;
            words[count++] = (char *)arguments + begin;
            begin = i + 1;
        }
    words[count] = 0;
    return 0;
}

static void close_pair(int *pair) { shut(&pair[0]); shut(&pair[1]); }

static int start(struct command *c, int with_input)
{
    int in[2] = { 0, 0 }, out[2] = { 0, 0 }, err[2] = { 0, 0 };
    long error = split_arguments();
    if (error) return error;
    if (with_input) error = -CALL(pipe2, in, O_CLOEXEC, 0);
    else {
        in[0] = CALL(open, "/dev/null", O_CLOEXEC, 0);
        if (in[0] < 0) error = -in[0], in[0] = 0;
    }
    if (!error) error = -CALL(pipe2, out, O_CLOEXEC, 0);
    if (!error) error = -CALL(pipe2, err, O_CLOEXEC, 0);
    if (!error) {
        struct start s = { in[0], out[1], err[1], 0 };
        long pid = spawn(&s);
        if (pid < 0) error = -pid;
        else if (s.error) {
            error = s.error;
            CALL(wait4, pid, 0, 0);
        } else {
            c->pid = pid;
            c->in = in[1];
            c->out = out[0];
            c->err = err[0];
            if (with_input) CALL(fcntl, in[1], F_SETFL, O_NONBLOCK);
            in[1] = out[0] = err[0] = 0;
        }
    }
    close_pair(in);
    close_pair(out);
    close_pair(err);
    return error;
}

static void run(u32 number, int flags)
{
    int with_input = flags & HAS_INPUT;
    environment_now = flags & IN_SHELL ? environment_in_shell : environment;
    struct command *c = commands;
    while (c < commands + SLOTS && c->used) c++;
    int error = EAGAIN;
    if (c < commands + SLOTS && !find(number)) {
        c->number = number;
        c->reaped = c->in_ends = c->dropped_input = 0;
        c->start = c->count = c->owed = 0;
        c->in = c->out = c->err = 0;
        error = start(c, with_input);
        c->used = !error;
    }
    if (error) tell(number, EXIT, error == ENOENT || error == ENOTDIR ? 127 : 126, error, 8);
    else tell(number, PROCESS, c->pid, 0, 4);
}

/* An output is read only when what it may bring can be sent. */
static void drain(struct command *c, int *fd, u8 type)
{
    u32 room = room_to_send();
    if (room < CONTROL + LEAST + sizeof(struct frame)) return;
    room -= CONTROL + sizeof(struct frame);
    if (room > LONGEST) room = LONGEST;
    long n = CALL(read, *fd, sending + filled + sizeof(struct frame), room);
    if (n > 0) put_frame(c->number, type, n);
    else if (n != -EAGAIN && n != -EINTR) shut(fd);
}

static void give_back(struct command *c)
{
    if (c->owed && !c->in_ends && (c->owed >= ROOM / 4 || !c->count) && room_to_send() >= 64) {
        tell(c->number, TOOK, c->owed, 0, 4);
        c->owed = 0;
    }
}

static void feed(struct command *c)
{
    while (c->count) {
        u32 n = ROOM - c->start;
        if (n > c->count) n = c->count;
        long wrote = CALL(write, c->in, c->ring + c->start, n);
        if (wrote == -EAGAIN || wrote == -EINTR) break;
        if (wrote < 0) {
            shut(&c->in);
            c->count = 0;
            c->dropped_input = 1;
            break;
        }
        c->start = (c->start + wrote) % ROOM;
        c->count -= wrote;
        c->owed += wrote;
    }
    if (!c->count && c->in_ends) shut(&c->in);
    give_back(c);
}

static void take_input(struct command *c, const u8 *data, u32 length)
{
    if (!length) c->in_ends = 1;
    if (!c->in || length > ROOM - c->count) return;
    u32 at = (c->start + c->count) % ROOM, first = ROOM - at;
    if (first > length) first = length;
    memcpy(c->ring + at, data, first);
    memcpy(c->ring, data + first, length - first);
    c->count += length;
    feed(c);
}

static void reap(struct command *c, int status)
{
    c->reaped = 1;
    c->status = status & 127 ? 128 + (status & 127) : status >> 8 & 255;
}

static void reap_all(void)
{
    int status;
    long pid;
    while ((pid = CALL(wait4, -1, &status, WNOHANG)) > 0)
        for (struct command *c = commands; c < commands + SLOTS; c++)
            if (c->used && !c->reaped && c->pid == pid) reap(c, status);
}

/* What has come to its end, and what could not be told for want of room. */
static void settle(struct command *c)
{
    int status;
    if (!c->out && !c->err && !c->reaped && CALL(wait4, c->pid, &status, WNOHANG) == c->pid) reap(c, status);
    if (room_to_send() < 64) return;
    if (c->dropped_input == 1) {
        tell(c->number, TOOK, 0xffffffff, 0, 4);
        c->dropped_input = 2;
    }
    give_back(c);
    if (c->reaped && !c->out && !c->err && room_to_send() >= 64) {
        tell(c->number, EXIT, c->status, 0, 8);
        forget(c);
    }
}

/* -- from the host ----------------------------------------------------------------------------------------- */

static void collect(u32 number, const u8 *data, u32 length)
{
    static u32 collected;
    if (number != collected) argument_bytes = too_many = 0;
    collected = number;
    if (length > ARGUMENTS - argument_bytes) too_many = 1;
    else {
        memcpy(arguments + argument_bytes, data, length);
        argument_bytes += length;
    }
}

static void obey(const struct frame *f, const u8 *data)
{
    struct command *c = find(f->command);
    if (f->type == HELLO) {
        forget_all();
        session = f->session;
        greeted = 1;
        tell(~session, WELCOME, 0, 0, 0);
    } else if (f->type == RUN) {
        collect(f->command, data, f->length);
        if (f->flags & MORE) return;
        run(f->command, f->flags);
        argument_bytes = too_many = 0;
    } else if (!c) return;
    else if (f->type == INPUT) take_input(c, data, f->length);
    else if (f->type == KILL) {
        if (!c->reaped) CALL(kill, -c->pid, SIGKILL, 0);
    } else if (f->type == DROP) forget(c);
}

static int plausible(const struct frame *f)
{
    if (f->magic != MAGIC || f->length > LONGEST) return 0;
    if (f->type == HELLO) return f->command == ~f->session && !f->length;
    return greeted && f->session == session && f->type > HELLO && f->type <= DROP;
}

/* Takes what is whole out of `received`; false when there is no room for answers. */
static int parse(void)
{
    u32 at = 0, ready = 1;
    while (have - at >= sizeof(struct frame)) {
        struct frame f;
        memcpy(&f, received + at, sizeof f);
        if (!plausible(&f)) { at++; continue; }
        if (have - at < sizeof f + f.length) break;
        if (room_to_send() < 128) { ready = 0; break; }
        obey(&f, received + at + sizeof f);
        at += sizeof f + f.length;
    }
    move_down(received, received + at, have - at);
    have -= at;
    return ready;
}

static void hung_up(void)
{
    if (is_socket) end(0);
    forget_all();
    have = 0;
    connected = greeted = 0;
}

static void listen(void)
{
    while (!(stalled = !parse())) {
        long n = CALL(read, port, received + have, sizeof received - have);
        if (n == -EAGAIN || n == -EINTR) return;
        if (n == -ENODEV) end(0);
        if (n <= 0) { hung_up(); return; }
        connected = 1;
        have += n;
    }
}

/* -- the loop ---------------------------------------------------------------------------------------------- */

static int signals_as_file(int number)
{
    u64 set = 1UL << (number - 1);
    return call(SYS_signalfd4, -1, (long)&set, 8, O_CLOEXEC | O_NONBLOCK);
}

static void empty(int signals)
{
    u8 info[128 * 4];
    while (CALL(read, signals, info, sizeof info) > 0) {}
}

static struct pollfd polled[3 + 3 * SLOTS];

static void serve(void)
{
    int again = 0;
    for (;;) {
        u32 room = room_to_send(), n = 3;
        polled[0] = (struct pollfd){ children, POLLIN, 0 };
        polled[1] = (struct pollfd){ connected ? -1 : arrivals, POLLIN, 0 };
        polled[2] = (struct pollfd){ connected ? port : -1, (room >= 128 ? POLLIN : 0) | (filled ? POLLOUT : 0), 0 };
        int wanted = room >= CONTROL + LEAST + sizeof(struct frame) ? POLLIN : 0;
        for (struct command *c = commands; c < commands + SLOTS; c++) {
            int fd_out = c->used && wanted && c->out ? c->out : -1, fd_err = c->used && wanted && c->err ? c->err : -1;
            int fd_in = c->used && c->in && c->count ? c->in : -1;
            polled[n++] = (struct pollfd){ fd_out, POLLIN, 0 };
            polled[n++] = (struct pollfd){ fd_err, POLLIN, 0 };
            polled[n++] = (struct pollfd){ fd_in, POLLOUT, 0 };
        }
        /* The time limit is only for a driver that sends no signal. */
        CALL(poll, polled, n, again ? 0 : connected ? -1 : 1000);
        if (polled[0].revents) {
            empty(children);
            reap_all();
        }
        if (!connected) empty(arrivals);
        for (u32 i = 0; i < SLOTS; i++) {
            u32 slot = (turn + i) % SLOTS;              /* so that nobody is always last */
            struct command *c = commands + slot;
            struct pollfd *p = polled + 3 + 3 * slot;
            if (!c->used) continue;
            if (p[2].revents && c->in) feed(c);
            if (p[0].revents && c->out) drain(c, &c->out, OUT);
            if (p[1].revents && c->err) drain(c, &c->err, ERR);
            settle(c);
        }
        turn++;
        if (!connected || stalled || polled[2].revents & (POLLIN | POLLHUP | POLLERR)) listen();
        int tight = room_to_send() < 128;
        flush();
        again = tight && room_to_send() >= 128;     /* what had no room may go on */
    }
}

/* Copies the environment; what is too long for that stays as it is. */
static void prepare_environment(void)
{
    static char *copy[1024];
    static char level[] = "SHLVL=\0\0\0";
    u32 n = 0;
    environment_in_shell = environment;
    for (; environment[n]; n++) {
        if (n == 1023) return;
        const char *e = environment[n];
        u32 same_length = 0, value = 0;
        while (same_length < 6 && e[same_length] == level[same_length]) same_length++;
        copy[n] = environment[n];
        if (same_length < 6) continue;
        for (e += 6; *e >= '0' && *e <= '9' && value < 99; e++) value = value * 10 + (*e - '0');
        if (*e || ++value > 99) continue;
        char *digit = level + 6;
        if (value > 9) *digit++ = '0' + value / 10;
        *digit = '0' + value % 10;
        copy[n] = level;
    }
    environment_in_shell = copy;
}

static void prepare_signals(void)
{
    struct { u64 handler, flags, restorer, mask; } standard = { 0, 0, 0, 0 };
    u64 set = 1UL << (SIGCHLD - 1) | 1UL << (SIGIO - 1) | 1UL << (SIGPIPE - 1);
    call(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&set, 0, 8);
    for (int number = 1; number <= SIGNALS; number++)
        call(SYS_rt_sigaction, number, (long)&standard, 0, 8);
    children = signals_as_file(SIGCHLD);
    arrivals = signals_as_file(SIGIO);
}

__attribute__((used)) static void entry(long *stack)
{
    long count = stack[0];
    char **arguments_given = (char **)(stack + 1);
    long fd;
    environment = arguments_given + count + 1;
    do fd = CALL(open, "/dev/null", O_RDWR, 0); while (fd >= 0 && fd < 3);
    if (fd >= 3) CALL(close, fd, 0, 0);
    if (count == 3 && same(arguments_given[1], "--fd")) {
        is_socket = connected = 1;
        port = 0;
        for (char *c = arguments_given[2]; *c; c++) port = port * 10 + (*c - '0');
        fd = CALL(fcntl, port, F_DUPFD_CLOEXEC, 3);
        CALL(close, port, 0, 0);
    } else if (count == 2) fd = CALL(open, arguments_given[1], O_RDWR | O_NOCTTY | O_CLOEXEC, 0);
    else complain("usage: maqet-exec PORT | --fd N\n", 2);
    if (fd < 0) complain("maqet-exec: the port cannot be opened\n", 1);
    port = fd;
    prepare_signals();
    prepare_environment();
    CALL(fcntl, port, F_SETOWN, CALL(getpid, 0, 0, 0));
    CALL(fcntl, port, F_SETFL, CALL(fcntl, port, F_GETFL, 0) | O_NONBLOCK | (is_socket ? 0 : O_ASYNC));
    if (!is_socket) listen();                   /* whether somebody is connected */
    serve();
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall entry\n");
