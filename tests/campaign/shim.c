/* Fails calls of the C library below one folder, and shifts the wall clock, on demand.
 *
 * Preloaded into agent or puller. CAMPAIGN_SHIM names a file with a `struct control`, which the campaign
 * changes at any time (campaign/shim.py). Calls that do not pass through the C library are not reached.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { READ = 1, WRITE = 2, SYNC = 4 };

struct control {
    int64_t seconds;   /* added to the wall clock */
    int32_t operation; /* those that fail: a sum of the above */
    int32_t skip;      /* calls until the first failure */
    int32_t times;     /* failures that are left */
    int32_t error;     /* errno of a failure; 0 for a count that is too short */
    int32_t happened;  /* failures so far */
    int32_t unused;
    char below[4096];  /* folder in which calls fail */
};

static struct control *control;

__attribute__((constructor)) static void open_control(void)
{
    const char *path = getenv("CAMPAIGN_SHIM");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    control = found == MAP_FAILED ? NULL : found;
}

static int is_below(int fd)
{
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return strncmp(path, control->below, strlen(control->below)) == 0;
}

static int fails(int operation, int fd)
{
    if (control == NULL || !(control->operation & operation) || control->times <= 0)
        return 0;
    int saved = errno;
    int is_one = is_below(fd) && __atomic_fetch_sub(&control->skip, 1, __ATOMIC_SEQ_CST) <= 0
        && __atomic_fetch_sub(&control->times, 1, __ATOMIC_SEQ_CST) > 0;
    errno = saved;
    if (is_one)
        __atomic_add_fetch(&control->happened, 1, __ATOMIC_SEQ_CST);
    return is_one;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (real == NULL) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A count of at least one byte, and too short if there were more. */
static size_t half(size_t count) { return count > 1 ? count / 2 : count; }

#define PLAIN(name, operation, buffer, ...) \
    ssize_t name(int fd, buffer data, size_t count __VA_OPT__(,) __VA_ARGS__) \
    { \
        REAL(name); \
        if (fails(operation, fd)) { \
            if (control->error) { errno = control->error; return -1; } \
            count = half(count); \
        } \
        return real(fd, data, count PASS); \
    }

#define PASS
PLAIN(read, READ, void *)
PLAIN(write, WRITE, const void *)
#undef PASS
#define PASS , offset
PLAIN(pread, READ, void *, off_t offset)
PLAIN(pread64, READ, void *, off64_t offset)
PLAIN(pwrite, WRITE, const void *, off_t offset)
PLAIN(pwrite64, WRITE, const void *, off64_t offset)
#undef PASS

/* Too short: the first buffer alone, or half of it if there is only one. */
#define VECTORS(name, operation, ...) \
    ssize_t name(int fd, const struct iovec *parts, int count __VA_OPT__(,) __VA_ARGS__) \
    { \
        REAL(name); \
        if (fails(operation, fd)) { \
            if (control->error) { errno = control->error; return -1; } \
            struct iovec one = *parts; \
            one.iov_len = count > 1 ? one.iov_len : half(one.iov_len); \
            return real(fd, &one, 1 PASS); \
        } \
        return real(fd, parts, count PASS); \
    }

#define PASS
VECTORS(readv, READ)
VECTORS(writev, WRITE)
#undef PASS
#define PASS , offset
VECTORS(preadv, READ, off_t offset)
VECTORS(preadv64, READ, off64_t offset)
VECTORS(pwritev, WRITE, off_t offset)
VECTORS(pwritev64, WRITE, off64_t offset)
#undef PASS
#define PASS , offset, flags
VECTORS(preadv2, READ, off_t offset, int flags)
VECTORS(preadv64v2, READ, off64_t offset, int flags)
VECTORS(pwritev2, WRITE, off_t offset, int flags)
VECTORS(pwritev64v2, WRITE, off64_t offset, int flags)
#undef PASS

#define SYNCS(name) \
    int name(int fd) \
    { \
        REAL(name); \
        if (fails(SYNC, fd)) { errno = control->error ? control->error : EIO; return -1; } \
        return real(fd); \
    }

SYNCS(fsync)
SYNCS(fdatasync)
SYNCS(syncfs)

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int done = real(clock, now);
    if (done == 0 && control != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += control->seconds;
    return done;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now != NULL)
        *now = found.tv_sec;
    return found.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec found;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}
