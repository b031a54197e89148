/* A layer between a real process and the file system, loaded with LD_PRELOAD.
 *
 * It logs what the process does to the files below $SHIM_ROOT into $SHIM_LOG, so that power cuts can be replayed, and
 * it lets the n-th call of a kind fail with an error of choice. Only files below $SHIM_ROOT are touched.
 *
 * A record of the log: four little-endian numbers (uint32 kind, uint32 file, uint64 offset, uint64 length) and `length`
 * bytes. A file keeps its number over renames; a new file under an old name has a new one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, SYNC_FOLDER, MARK };
enum { C_OPEN, C_READ, C_WRITE, C_SYNC, C_TRUNCATE, C_RENAME, C_UNLINK, C_MMAP, C_LOCK, C_STAT, C_CALLS };
enum { MAX_FD = 4096, MAX_FILES = 65536 };

static char root[4096];
static size_t root_length;
static int log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t file_of[MAX_FD]; /* number of the open file, 0: not watched */
static char is_folder[MAX_FD];
static struct { dev_t dev; ino_t ino; } files[MAX_FILES];
static uint32_t n_files = 1;
static long counts[C_CALLS];
static int armed_call = -1, armed_errno, armed_sticky;
static long armed_at, fired;

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void start(void) {
    const char *where = getenv("SHIM_ROOT"), *log = getenv("SHIM_LOG");
    if (where) { snprintf(root, sizeof root, "%s/", where); root_length = strlen(root); }
    if (log) log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static int watched(const char *path) {
    return root_length && path && (!strncmp(path, root, root_length)
           || (strlen(path) == root_length - 1 && !strncmp(path, root, root_length - 1)));
}

static void record(uint32_t kind, uint32_t file, uint64_t offset, const void *data, uint64_t length) {
    if (log_fd < 0) return;
    struct { uint32_t kind, file; uint64_t offset, length; } head = {kind, file, offset, length};
    pthread_mutex_lock(&lock);
    syscall(SYS_write, log_fd, &head, sizeof head);
    for (uint64_t done = 0; done < length;) {
        long n = syscall(SYS_write, log_fd, (const char *)data + done, length - done);
        if (n <= 0) abort();
        done += (uint64_t)n;
    }
    pthread_mutex_unlock(&lock);
}

/* 0: go on; otherwise the errno this call shall fail with, -1 a short write. */
static int fault(int call) {
    long n = __sync_add_and_fetch(&counts[call], 1);
    if (call != armed_call || (armed_sticky ? n < armed_at : n != armed_at)) return 0;
    fired++;
    return armed_errno;
}

void shim_arm(int call, long nth, int error, int sticky) {
    memset(counts, 0, sizeof counts);
    armed_at = nth; armed_errno = error; armed_sticky = sticky; fired = 0; armed_call = call;
}
long shim_count(int call) { return counts[call]; }
long shim_fired(void) { return fired; }
void shim_mark(const char *text) { record(MARK, 0, 0, text, strlen(text)); }

static uint32_t number(const struct stat *s, int created) {
    pthread_mutex_lock(&lock);
    uint32_t found = 0;
    for (uint32_t i = n_files; i-- > 1 && !found;)
        if (files[i].dev == s->st_dev && files[i].ino == s->st_ino) found = i;
    if (!found || created) {
        if (n_files == MAX_FILES) abort();
        found = n_files++;
        files[found].dev = s->st_dev; files[found].ino = s->st_ino;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static int opened(const char *path, int flags, mode_t mode) {
    if (!watched(path)) return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    int e = fault(C_OPEN);
    if (e) { errno = e; return -1; }
    struct stat s;
    int existed = !syscall(SYS_newfstatat, AT_FDCWD, path, &s, 0);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd < 0 || fd >= MAX_FD) return fd;
    syscall(SYS_newfstatat, fd, "", &s, AT_EMPTY_PATH);
    file_of[fd] = number(&s, !existed);
    is_folder[fd] = S_ISDIR(s.st_mode);
    if (!existed) record(CREATE, file_of[fd], 0, path, strlen(path));
    else if (flags & O_TRUNC) record(TRUNCATE, file_of[fd], 0, "", 0);
    return fd;
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }
#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); mode_t mode = mode_of(flags, rest); va_end(rest); \
    return opened(path, flags, mode); }
OPEN(open)
OPEN(open64)
int __open_2(const char *path, int flags) { return opened(path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(path, flags, 0); }

static int watched_fd(int fd) { return fd >= 0 && fd < MAX_FD && file_of[fd]; }

int close(int fd) {
    if (fd >= 0 && fd < MAX_FD) file_of[fd] = 0;
    return (int)syscall(SYS_close, fd);
}

static ssize_t written(int fd, const void *data, size_t n, off_t at) {
    int e = fault(C_WRITE);
    if (e > 0) { errno = e; return -1; }
    if (e < 0 && n > 1) n /= 2;
    ssize_t done = at < 0 ? syscall(SYS_write, fd, data, n) : syscall(SYS_pwrite64, fd, data, n, at);
    if (done > 0) record(WRITE, file_of[fd], at < 0 ? (uint64_t)(lseek(fd, 0, SEEK_CUR) - done) : (uint64_t)at, data, (uint64_t)done);
    return done;
}
ssize_t write(int fd, const void *data, size_t n) {
    return watched_fd(fd) ? written(fd, data, n, -1) : syscall(SYS_write, fd, data, n);
}
#define PWRITE(name) ssize_t name(int fd, const void *data, size_t n, off_t at) { \
    return watched_fd(fd) ? written(fd, data, n, at) : syscall(SYS_pwrite64, fd, data, n, at); }
PWRITE(pwrite)
PWRITE(pwrite64)

#define READ_FAULT(fd) if (watched_fd(fd)) { int e = fault(C_READ); if (e) { errno = e; return -1; } }
ssize_t read(int fd, void *data, size_t n) { READ_FAULT(fd) return syscall(SYS_read, fd, data, n); }
ssize_t pread(int fd, void *data, size_t n, off_t at) { READ_FAULT(fd) return syscall(SYS_pread64, fd, data, n, at); }
ssize_t pread64(int fd, void *data, size_t n, off_t at) { READ_FAULT(fd) return syscall(SYS_pread64, fd, data, n, at); }

#define CUT(name) int name(int fd, off_t size) { \
    if (watched_fd(fd)) { int e = fault(C_TRUNCATE); if (e) { errno = e; return -1; } } \
    int rc = (int)syscall(SYS_ftruncate, fd, size); \
    if (!rc && watched_fd(fd)) record(TRUNCATE, file_of[fd], (uint64_t)size, "", 0); \
    return rc; }
CUT(ftruncate)
CUT(ftruncate64)

static int synced(int fd, long call) {
    if (watched_fd(fd)) { int e = fault(C_SYNC); if (e) { errno = e; return -1; } }
    int rc = (int)syscall(call, fd);
    if (!rc && watched_fd(fd)) record(is_folder[fd] ? SYNC_FOLDER : SYNC, file_of[fd], 0, "", 0);
    return rc;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int rename(const char *from, const char *to) {
    int mine = watched(from) || watched(to);
    if (mine) { int e = fault(C_RENAME); if (e) { errno = e; return -1; } }
    int rc = (int)syscall(SYS_rename, from, to);
    if (!rc && mine) {
        char both[8192];
        int n = snprintf(both, sizeof both, "%s\n%s", from, to);
        record(RENAME, 0, 0, both, (uint64_t)n);
    }
    return rc;
}
int unlink(const char *path) {
    if (watched(path)) { int e = fault(C_UNLINK); if (e) { errno = e; return -1; } }
    int rc = (int)syscall(SYS_unlink, path);
    if (!rc && watched(path)) record(UNLINK, 0, 0, path, strlen(path));
    return rc;
}

#define MAP(name) void *name(void *at, size_t n, int prot, int flags, int fd, off_t offset) { \
    if (watched_fd(fd)) { int e = fault(C_MMAP); if (e) { errno = e; return MAP_FAILED; } } \
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset); }
MAP(mmap)
MAP(mmap64)

#define CONTROL(name) int name(int fd, int command, ...) { \
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \
    if (watched_fd(fd) && command == F_SETLK && ((struct flock *)argument)->l_type != F_UNLCK) { int e = fault(C_LOCK); if (e) { errno = e; return -1; } } \
    return (int)syscall(SYS_fcntl, fd, command, argument); }
CONTROL(fcntl)
CONTROL(fcntl64)

#define STAT(name, struct_stat, flags) int name(const char *path, struct struct_stat *s) { \
    if (watched(path)) { int e = fault(C_STAT); if (e) { errno = e; return -1; } } \
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, s, flags); }
STAT(stat, stat, 0)
STAT(stat64, stat64, 0)
STAT(lstat, stat, AT_SYMLINK_NOFOLLOW)
STAT(lstat64, stat64, AT_SYMLINK_NOFOLLOW)
#define FSTAT(name, struct_stat) int name(int fd, struct struct_stat *s) { \
    if (watched_fd(fd)) { int e = fault(C_STAT); if (e) { errno = e; return -1; } } \
    return (int)syscall(SYS_newfstatat, fd, "", s, AT_EMPTY_PATH); }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)
