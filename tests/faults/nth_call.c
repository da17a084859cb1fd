/* Makes the n-th writing call below a folder fail, or that one and all later ones. Preloaded; armed from Python by ctypes (tests/faults/nth_call.py).
 *
 * Counted are calls that write to, make, rename, sync, lengthen or cut a file below the folder, in all threads. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF = 0, SHORT = -1 }; /* other kinds are the error number */

static char folder[PATH_MAX];
static size_t folder_length;
static atomic_int kind;
static atomic_long left;
static atomic_long seen;
static char struck[PATH_MAX + 64];

static atomic_int for_good;

void nth_arm(const char *below, long n, int what, int also_later) {
    snprintf(folder, sizeof folder, "%s", below);
    folder_length = strlen(folder);
    struck[0] = 0;
    seen = 0;
    left = n;
    for_good = also_later;
    kind = what;
}

long nth_disarm(void) {
    kind = OFF;
    return seen;
}

const char *nth_struck(void) { return struck; }

static int is_below(const char *path) {
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static void absolute(int directory, const char *path, char *out) {
    char base[PATH_MAX];
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else if (directory == AT_FDCWD ? getcwd(base, sizeof base) != NULL : path_of(directory, base)) {
        snprintf(out, 2 * PATH_MAX + 2, "%s/%s", base, path);
    } else {
        out[0] = 0;
    }
}

/* Tell whether this call is the one; then errno is set, unless it is to be a short write. */
static int strikes(const char *call, const char *path) {
    seen++;
    long before = left--;
    if (before != 1 && !(before < 1 && for_good)) return 0;
    if (before == 1) snprintf(struck, sizeof struck, "%s %s", call, path);
    if (kind > 0) errno = kind;
    return 1;
}

static int strikes_fd(const char *call, int fd, size_t length) {
    char path[PATH_MAX];
    int saved = errno;
    if (kind == OFF || (kind == SHORT && length < 2) || !path_of(fd, path) || !is_below(path)) {
        errno = saved;
        return 0;
    }
    errno = saved;
    return strikes(call, path);
}

static int strikes_path(const char *call, int directory, const char *path) {
    char whole[2 * PATH_MAX + 2];
    int saved = errno;
    if (kind <= 0) return 0;
    absolute(directory, path, whole);
    errno = saved;
    return is_below(whole) && strikes(call, whole);
}

#define REAL(type, name) \
    static type real; \
    if (!real) real = (type)dlsym(RTLD_NEXT, name)

typedef ssize_t (*write_t)(int, const void *, size_t);
typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);
typedef ssize_t (*writev_t)(int, const struct iovec *, int);
typedef ssize_t (*pwritev_t)(int, const struct iovec *, int, off_t);
typedef int (*fd_t)(int);
typedef int (*truncate_t)(int, off_t);
typedef int (*fallocate_t)(int, int, off_t, off_t);
typedef int (*posix_fallocate_t)(int, off_t, off_t);
typedef int (*openat_t)(int, const char *, int, mode_t);
typedef int (*open_t)(const char *, int, mode_t);
typedef int (*rename_t)(const char *, const char *);
typedef int (*renameat_t)(int, const char *, int, const char *);
typedef int (*mkdir_t)(const char *, mode_t);

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write_t, "write");
    if (strikes_fd("write", fd, length)) return kind == SHORT ? real(fd, data, length / 2) : -1;
    return real(fd, data, length);
}

static ssize_t pwrite_any(int fd, const void *data, size_t length, off_t place) {
    REAL(pwrite_t, "pwrite64");
    if (strikes_fd("pwrite", fd, length)) return kind == SHORT ? real(fd, data, length / 2, place) : -1;
    return real(fd, data, length, place);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t place) { return pwrite_any(fd, data, length, place); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t place) { return pwrite_any(fd, data, length, place); }

/* A short one writes the first buffer alone, or half of it. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev_t, "writev");
    if (strikes_fd("writev", fd, count ? parts[0].iov_len : 0)) {
        if (kind != SHORT) return -1;
        return count > 1 ? real(fd, parts, 1) : write(fd, parts[0].iov_base, parts[0].iov_len / 2);
    }
    return real(fd, parts, count);
}

static ssize_t pwritev_any(int fd, const struct iovec *parts, int count, off_t place) {
    REAL(pwritev_t, "pwritev64");
    if (strikes_fd("pwritev", fd, count ? parts[0].iov_len : 0)) {
        if (kind != SHORT) return -1;
        return pwrite_any(fd, parts[0].iov_base, parts[0].iov_len / 2, place);
    }
    return real(fd, parts, count, place);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t place) {
    return pwritev_any(fd, parts, count, place);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t place) {
    return pwritev_any(fd, parts, count, place);
}

int fsync(int fd) {
    REAL(fd_t, "fsync");
    return kind > 0 && strikes_fd("fsync", fd, 2) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(fd_t, "fdatasync");
    return kind > 0 && strikes_fd("fdatasync", fd, 2) ? -1 : real(fd);
}

static int truncate_any(int fd, off_t length) {
    REAL(truncate_t, "ftruncate64");
    return kind > 0 && strikes_fd("ftruncate", fd, 2) ? -1 : real(fd, length);
}
int ftruncate(int fd, off_t length) { return truncate_any(fd, length); }
int ftruncate64(int fd, off_t length) { return truncate_any(fd, length); }

static int fallocate_any(int fd, int mode, off_t place, off_t length) {
    REAL(fallocate_t, "fallocate64");
    return kind > 0 && strikes_fd("fallocate", fd, 2) ? -1 : real(fd, mode, place, length);
}
int fallocate(int fd, int mode, off_t place, off_t length) { return fallocate_any(fd, mode, place, length); }
int fallocate64(int fd, int mode, off_t place, off_t length) { return fallocate_any(fd, mode, place, length); }

static int posix_fallocate_any(int fd, off_t place, off_t length) {
    REAL(posix_fallocate_t, "posix_fallocate64");
    return kind > 0 && strikes_fd("posix_fallocate", fd, 2) ? kind : real(fd, place, length);
}
int posix_fallocate(int fd, off_t place, off_t length) { return posix_fallocate_any(fd, place, length); }
int posix_fallocate64(int fd, off_t place, off_t length) { return posix_fallocate_any(fd, place, length); }

static int openat_any(int directory, const char *path, int flags, mode_t mode) {
    REAL(openat_t, "openat64");
    if ((flags & O_ACCMODE) != O_RDONLY && strikes_path("open", directory, path)) return -1;
    return real(directory, path, flags, mode);
}

#define MODE_OF(flags, mode) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags, mode) return openat_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags, mode) return openat_any(AT_FDCWD, path, flags, mode); }
int openat(int directory, const char *path, int flags, ...) {
    MODE_OF(flags, mode) return openat_any(directory, path, flags, mode);
}
int openat64(int directory, const char *path, int flags, ...) {
    MODE_OF(flags, mode) return openat_any(directory, path, flags, mode);
}

int rename(const char *from, const char *to) {
    REAL(rename_t, "rename");
    return strikes_path("rename", AT_FDCWD, to) ? -1 : real(from, to);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    REAL(renameat_t, "renameat");
    return strikes_path("renameat", to_directory, to) ? -1 : real(from_directory, from, to_directory, to);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir_t, "mkdir");
    return strikes_path("mkdir", AT_FDCWD, path) ? -1 : real(path, mode);
}
