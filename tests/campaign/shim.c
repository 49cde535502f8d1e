/* Fails calls of the C library below one folder, and shifts the wall clock, on demand.
 *
 * Preloaded into agent or puller. CAMPAIGN_SHIM names a file with a `struct control`, which the campaign
 * changes at any time (campaign/shim.py). Calls that do not pass through the C library are not reached.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { READ = 1, WRITE = 2, SYNC = 4, NAME = 8, OPEN = 16 };

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

static int is_below(int fd, const char *name_there)
{
    if (name_there != NULL && name_there[0] == '/')
        return strncmp(name_there, control->below, strlen(control->below)) == 0;
    if (fd == AT_FDCWD)
        return 0;

    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return strncmp(path, control->below, strlen(control->below)) == 0;
}

/* Whether a call about a descriptor fails, or about a name relative to the folder `fd`. */
static int fails_at(int operation, int fd, const char *name)
{
    if (control == NULL || !(control->operation & operation) || control->times <= 0)
        return 0;
    int saved = errno;
    int is_one = is_below(fd, name) && __atomic_fetch_sub(&control->skip, 1, __ATOMIC_SEQ_CST) <= 0
        && __atomic_fetch_sub(&control->times, 1, __ATOMIC_SEQ_CST) > 0;
    errno = saved;
    if (is_one)
        __atomic_add_fetch(&control->happened, 1, __ATOMIC_SEQ_CST);
    return is_one;
}

static int fails(int operation, int fd) { return fails_at(operation, fd, NULL); }

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

#define ABOUT_OPEN(name, type, failure, parameters, arguments) \
    type name parameters \
    { \
        REAL(name); \
        if (fails(OPEN, fd)) { errno = control->error; return failure; } \
        return real arguments; \
    }

ABOUT_OPEN(fstat, int, -1, (int fd, struct stat *found), (fd, found))
ABOUT_OPEN(fstat64, int, -1, (int fd, struct stat64 *found), (fd, found))
ABOUT_OPEN(fstatvfs, int, -1, (int fd, struct statvfs *found), (fd, found))
ABOUT_OPEN(fstatvfs64, int, -1, (int fd, struct statvfs64 *found), (fd, found))
ABOUT_OPEN(lseek, off_t, -1, (int fd, off_t offset, int from), (fd, offset, from))
ABOUT_OPEN(lseek64, off64_t, -1, (int fd, off64_t offset, int from), (fd, offset, from))
ABOUT_OPEN(ftruncate, int, -1, (int fd, off_t length), (fd, length))
ABOUT_OPEN(ftruncate64, int, -1, (int fd, off64_t length), (fd, length))
ABOUT_OPEN(posix_fallocate, int, control->error, (int fd, off_t offset, off_t length), (fd, offset, length))
ABOUT_OPEN(posix_fallocate64, int, control->error, (int fd, off64_t offset, off64_t length),
           (fd, offset, length))
ABOUT_OPEN(fchmod, int, -1, (int fd, mode_t mode), (fd, mode))
ABOUT_OPEN(fchown, int, -1, (int fd, uid_t user, gid_t group), (fd, user, group))
ABOUT_OPEN(futimens, int, -1, (int fd, const struct timespec times[2]), (fd, times))
ABOUT_OPEN(flistxattr, ssize_t, -1, (int fd, char *list, size_t size), (fd, list, size))
ABOUT_OPEN(fgetxattr, ssize_t, -1, (int fd, const char *name, void *value, size_t size),
           (fd, name, value, size))
ABOUT_OPEN(fsetxattr, int, -1, (int fd, const char *name, const void *value, size_t size, int flags),
           (fd, name, value, size, flags))
ABOUT_OPEN(fremovexattr, int, -1, (int fd, const char *name), (fd, name))

#define LISTS(name, entry) \
    struct entry *name(DIR *folder) \
    { \
        REAL(name); \
        if (fails(OPEN, dirfd(folder))) { errno = control->error; return NULL; } \
        return real(folder); \
    }

LISTS(readdir, dirent)
LISTS(readdir64, dirent64)

#define NAMED(name, parameters, arguments, folder, path) \
    int name parameters \
    { \
        REAL(name); \
        if (fails_at(NAME, folder, path)) { errno = control->error; return -1; } \
        return real arguments; \
    }

NAMED(stat, (const char *path, struct stat *found), (path, found), AT_FDCWD, path)
NAMED(stat64, (const char *path, struct stat64 *found), (path, found), AT_FDCWD, path)
NAMED(lstat, (const char *path, struct stat *found), (path, found), AT_FDCWD, path)
NAMED(lstat64, (const char *path, struct stat64 *found), (path, found), AT_FDCWD, path)
NAMED(fstatat, (int at, const char *path, struct stat *found, int flags), (at, path, found, flags), at, path)
NAMED(fstatat64, (int at, const char *path, struct stat64 *found, int flags), (at, path, found, flags), at, path)
NAMED(rename, (const char *from, const char *to), (from, to), AT_FDCWD, to)
NAMED(renameat, (int at, const char *from, int there, const char *to), (at, from, there, to), there, to)
NAMED(renameat2, (int at, const char *from, int there, const char *to, unsigned flags),
      (at, from, there, to, flags), there, to)
NAMED(unlink, (const char *path), (path), AT_FDCWD, path)
NAMED(unlinkat, (int at, const char *path, int flags), (at, path, flags), at, path)
NAMED(rmdir, (const char *path), (path), AT_FDCWD, path)
NAMED(mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
NAMED(mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), at, path)
NAMED(chmod, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
NAMED(fchmodat, (int at, const char *path, mode_t mode, int flags), (at, path, mode, flags), at, path)
NAMED(fchownat, (int at, const char *path, uid_t user, gid_t group, int flags),
      (at, path, user, group, flags), at, path)
NAMED(utimensat, (int at, const char *path, const struct timespec times[2], int flags),
      (at, path, times, flags), at, path)
NAMED(symlink, (const char *target, const char *path), (target, path), AT_FDCWD, path)
NAMED(symlinkat, (const char *target, int at, const char *path), (target, at, path), at, path)
NAMED(linkat, (int at, const char *from, int there, const char *to, int flags),
      (at, from, there, to, flags), there, to)
NAMED(truncate, (const char *path, off_t length), (path, length), AT_FDCWD, path)
NAMED(truncate64, (const char *path, off64_t length), (path, length), AT_FDCWD, path)
NAMED(access, (const char *path, int mode), (path, mode), AT_FDCWD, path)
NAMED(faccessat, (int at, const char *path, int mode, int flags), (at, path, mode, flags), at, path)
NAMED(statvfs, (const char *path, struct statvfs *found), (path, found), AT_FDCWD, path)
NAMED(statvfs64, (const char *path, struct statvfs64 *found), (path, found), AT_FDCWD, path)

ssize_t readlink(const char *path, char *target, size_t size)
{
    REAL(readlink);
    if (fails_at(NAME, AT_FDCWD, path)) { errno = control->error; return -1; }
    return real(path, target, size);
}

ssize_t readlinkat(int at, const char *path, char *target, size_t size)
{
    REAL(readlinkat);
    if (fails_at(NAME, at, path)) { errno = control->error; return -1; }
    return real(at, path, target, size);
}

DIR *opendir(const char *path)
{
    REAL(opendir);
    if (fails_at(NAME, AT_FDCWD, path)) { errno = control->error; return NULL; }
    return real(path);
}

#define OPENS(name, parameters, arguments, folder) \
    int name parameters \
    { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (fails_at(NAME, folder, path)) { errno = control->error; return -1; } \
        return real arguments; \
    }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPENS(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode), at)
OPENS(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode), at)

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
