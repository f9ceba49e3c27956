/*
 * Fails the n-th call of a function of the C library in the process that this is preloaded into, as tests/it/nth.rs asks for in a file that both
 * map into their memory. Each function is one of a class ("read" has read, recv, readv, ...); a class is what is counted.
 *
 * Not here: what is right afterwards. It also writes down who called when it failed a call, and where a signal ended the process.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum class { NONE, MALLOC, READ, WRITE, CONNECT, POLL, OPENAT, SOCKET, OPTION, THREAD, LOG };

enum { FRAMES = 48, RANGES = 4096 };

/* Where a failed call or the end came from: addresses, and what of each is loaded where. */
struct trace {
    _Atomic uint32_t count;
    uint32_t unused;
    struct {
        char module[48];
        char symbol[64];
        uint64_t offset;
    } frames[FRAMES];
};

/* The file, as tests/it/nth.rs has it too. */
struct shared {
    _Atomic uint32_t class;     /* which class is counted */
    uint32_t error;             /* errno of the call that fails; 0 = it succeeds with one byte */
    uint64_t nth;               /* which call fails, from 1 on; 0 = none */
    uint32_t on;                /* 1 = and all that follow */
    uint32_t threads;           /* 1 = calls of sessions' threads only */
    uint32_t callers;           /* of malloc: 1 = C's calls only, 2 = Rust's only, 0 = both */
    uint32_t ranges;            /* how many parts of the program are C */
    _Atomic uint64_t count;     /* calls so far */
    _Atomic uint64_t failed;    /* calls failed so far */
    struct trace at;            /* of the first call that failed */
    struct trace end;           /* of the signal that ended the process */
    struct {
        uint64_t from, to;      /* from where the program is loaded */
    } c[RANGES];
};

static struct shared *shared;
static uintptr_t program, program_end;
static __thread int inside __attribute__((tls_model("initial-exec")));

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

static void note(struct trace *trace, void **frames, int count)
{
    for (int i = 0; i < count && i < FRAMES; i++) {
        Dl_info info;
        memset(&info, 0, sizeof info);
        if (!dladdr(frames[i], &info))
            continue;
        const char *name = info.dli_fname ? strrchr(info.dli_fname, '/') : NULL;
        strncpy(trace->frames[i].module, name ? name + 1 : "?", sizeof trace->frames[i].module - 1);
        strncpy(trace->frames[i].symbol, info.dli_sname ? info.dli_sname : "", sizeof trace->frames[i].symbol - 1);
        trace->frames[i].offset = (uintptr_t)frames[i] - (uintptr_t)info.dli_fbase;
        if ((uintptr_t)info.dli_fbase == program)
            strcpy(trace->frames[i].module, "sftpproxy");
    }
    trace->count = count < FRAMES ? count : FRAMES;
}

static int is_c(void *caller)
{
    if ((uintptr_t)caller < program || (uintptr_t)caller >= program_end)
        return 1;
    uint64_t offset = (uintptr_t)caller - program;
    for (uint32_t i = 0; i < shared->ranges; i++)
        if (offset >= shared->c[i].from && offset < shared->c[i].to)
            return 1;
    return 0;
}

static int of_session(void)
{
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    return !strncmp(name, "session-", 8) || !strncmp(name, "upstream-", 9);
}

/* Whether this call is the one. 0 = no, 1 = it fails with errno set, 2 = it is cut to one byte. */
static int fails(enum class class, void *caller)
{
    if (!shared || shared->class != class || inside)
        return 0;
    int before = errno, result = 0;
    inside = 1;
    if (shared->threads && !of_session())
        goto done;
    if (class == MALLOC && shared->callers && is_c(caller) != (shared->callers == 1))
        goto done;
    uint64_t number = atomic_fetch_add(&shared->count, 1) + 1;
    if (!shared->nth || number < shared->nth || (number > shared->nth && !shared->on))
        goto done;
    if (atomic_fetch_add(&shared->failed, 1) == 0) {
        void *frames[FRAMES];
        note(&shared->at, frames, backtrace(frames, FRAMES));
    }
    before = shared->error;
    result = shared->error ? 1 : 2;
done:
    inside = 0;
    errno = before;
    return result;
}

static void ended(int signal)
{
    inside = 1;
    if (shared && shared->end.count == 0) {
        void *frames[FRAMES];
        note(&shared->end, frames, backtrace(frames, FRAMES));
    }
    raise(signal);
}

__attribute__((constructor)) static void begin(void)
{
    Dl_info info;
    void *warm[2];
    inside = 1;
    const char *path = getenv("NTH_FILE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        backtrace(warm, 2); /* loads what it needs */
        struct sigaction action = { .sa_handler = ended, .sa_flags = SA_RESETHAND | SA_NODEFER };
        sigaction(SIGSEGV, &action, NULL);
        sigaction(SIGBUS, &action, NULL);
        sigaction(SIGABRT, &action, NULL);
        /* The kernel says where the program's headers are, and that is in the program. */
        const ElfW(Phdr) *header = (const void *)getauxval(AT_PHDR);
        if (dladdr(header, &info))
            program = (uintptr_t)info.dli_fbase;
        for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
            if (header[i].p_type == PT_LOAD && program + header[i].p_vaddr + header[i].p_memsz > program_end)
                program_end = program + header[i].p_vaddr + header[i].p_memsz;
        if (at != MAP_FAILED)
            shared = at;
    }
    inside = 0;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) { \
        int was = inside; \
        inside = 1; \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        inside = was; \
    }

#define FAILS(class) fails(class, __builtin_return_address(0))

void *malloc(size_t size) { return FAILS(MALLOC) ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) { return FAILS(MALLOC) ? NULL : __libc_calloc(count, size); }

void *realloc(void *at, size_t size) { return FAILS(MALLOC) ? NULL : __libc_realloc(at, size); }

int posix_memalign(void **to, size_t alignment, size_t size)
{
    if (FAILS(MALLOC))
        return ENOMEM;
    void *at = __libc_memalign(alignment, size);
    if (!at)
        return ENOMEM;
    *to = at;
    return 0;
}

void *aligned_alloc(size_t alignment, size_t size) { return FAILS(MALLOC) ? NULL : __libc_memalign(alignment, size); }

/* Functions that move bytes: they fail, or move one byte. */
#define MOVES(class, name, parameters, whole, part) \
    ssize_t name parameters \
    { \
        REAL(name) \
        switch (FAILS(class)) { \
            case 1: return -1; \
            case 2: return part; \
            default: return whole; \
        } \
    }

static size_t one(size_t length) { return length > 1 ? 1 : length; }

/* An eventfd takes and gives eight bytes or nothing. */
static size_t few(int fd, size_t length) { (void)fd; return length == 8 ? 8 : one(length); }

#define OF(fd) ((fd) == 2 ? LOG : WRITE)

MOVES(READ, read, (int fd, void *to, size_t length), real(fd, to, length), real(fd, to, few(fd, length)))
MOVES(READ, recv, (int fd, void *to, size_t length, int flags), real(fd, to, length, flags), real(fd, to, one(length), flags))
MOVES(READ, recvfrom, (int fd, void *restrict to, size_t length, int flags, struct sockaddr *restrict from, socklen_t *restrict size),
      real(fd, to, length, flags, from, size), real(fd, to, one(length), flags, from, size))
MOVES(READ, recvmsg, (int fd, struct msghdr *message, int flags), real(fd, message, flags), real(fd, message, flags))
MOVES(READ, readv, (int fd, const struct iovec *parts, int count), real(fd, parts, count), real(fd, parts, one(count)))
MOVES(READ, pread64, (int fd, void *to, size_t length, off64_t at), real(fd, to, length, at), real(fd, to, one(length), at))
MOVES(OF(fd), write, (int fd, const void *from, size_t length), real(fd, from, length), real(fd, from, few(fd, length)))
MOVES(OF(fd), writev, (int fd, const struct iovec *parts, int count), real(fd, parts, count), real(fd, parts, one(count)))
MOVES(WRITE, send, (int fd, const void *from, size_t length, int flags), real(fd, from, length, flags), real(fd, from, one(length), flags))
MOVES(WRITE, sendto, (int fd, const void *from, size_t length, int flags, const struct sockaddr *to, socklen_t size),
      real(fd, from, length, flags, to, size), real(fd, from, one(length), flags, to, size))
MOVES(WRITE, sendmsg, (int fd, const struct msghdr *message, int flags), real(fd, message, flags), real(fd, message, flags))

/* Functions that succeed or fail. */
#define DOES(class, name, parameters, arguments) \
    int name parameters \
    { \
        REAL(name) \
        return FAILS(class) ? -1 : real arguments; \
    }

DOES(CONNECT, connect, (int fd, const struct sockaddr *to, socklen_t size), (fd, to, size))
DOES(POLL, poll, (struct pollfd *fds, nfds_t count, int timeout), (fds, count, timeout))
DOES(POLL, ppoll, (struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask), (fds, count, timeout, mask))
DOES(SOCKET, socket, (int domain, int type, int protocol), (domain, type, protocol))
DOES(SOCKET, socketpair, (int domain, int type, int protocol, int both[2]), (domain, type, protocol, both))
DOES(SOCKET, accept4, (int fd, struct sockaddr *restrict from, socklen_t *restrict size, int flags), (fd, from, size, flags))
DOES(SOCKET, eventfd, (unsigned count, int flags), (count, flags))
DOES(SOCKET, dup, (int fd), (fd))
DOES(OPTION, setsockopt, (int fd, int level, int name, const void *value, socklen_t size), (fd, level, name, value, size))
DOES(OPTION, getsockopt, (int fd, int level, int name, void *restrict value, socklen_t *restrict size), (fd, level, name, value, size))
DOES(OPTION, getpeername, (int fd, struct sockaddr *restrict of, socklen_t *restrict size), (fd, of, size))
DOES(OPTION, getsockname, (int fd, struct sockaddr *restrict of, socklen_t *restrict size), (fd, of, size))
DOES(OPTION, shutdown, (int fd, int how), (fd, how))

int fcntl(int fd, int command, ...)
{
    REAL(fcntl)
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    int copies = command == F_DUPFD || command == F_DUPFD_CLOEXEC;
    return FAILS(copies ? SOCKET : OPTION) ? -1 : real(fd, command, argument);
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    if (!real)
        real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    return FAILS(OPTION) ? -1 : real(fd, request, argument);
}

#define OPENS(name, parameters, last, ...) \
    int name parameters \
    { \
        REAL(name) \
        va_list list; \
        va_start(list, last); \
        mode_t mode = last & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        return FAILS(OPENAT) ? -1 : real(__VA_ARGS__, mode); \
    }

OPENS(open, (const char *path, int flags, ...), flags, path, flags)
OPENS(open64, (const char *path, int flags, ...), flags, path, flags)
OPENS(openat, (int folder, const char *path, int flags, ...), flags, folder, path, flags)
OPENS(openat64, (int folder, const char *path, int flags, ...), flags, folder, path, flags)

FILE *fopen(const char *path, const char *mode)
{
    REAL(fopen)
    return FAILS(OPENAT) ? NULL : real(path, mode);
}

FILE *fopen64(const char *path, const char *mode)
{
    REAL(fopen64)
    return FAILS(OPENAT) ? NULL : real(path, mode);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    REAL(pthread_create)
    return FAILS(THREAD) ? errno : real(thread, attributes, start, argument);
}
