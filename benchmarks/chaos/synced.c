/* Loaded into a server (LD_PRELOAD): notes how much of each file is on disk, at each sync of it.
 *
 * CUT_LOG     where to note "inode length", once a sync has succeeded
 * CUT_DIE_AT  at the beginning of which sync of its newest log the process kills itself, if at all
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int (*sync_call)(int);

static sync_call real_fsync, real_fdatasync;
static int notes = -1;
static long die_at;
static atomic_long syncs;

__attribute__((constructor)) static void prepare(void) {
    const char *path = getenv("CUT_LOG"), *number = getenv("CUT_DIE_AT");
    real_fsync = (sync_call)dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (sync_call)dlsym(RTLD_NEXT, "fdatasync");
    if (path) notes = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (number) die_at = atol(number);
}

static int is_newest_log(int fd) {
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 9) return 0;
    name[length] = 0;
    return strcmp(name + length - 9, ".incr.aof") == 0;
}

static int noted(int fd, sync_call real) {
    struct stat before; /* what is written while the sync is under way may not be in it */
    int known = fstat(fd, &before) == 0 && S_ISREG(before.st_mode);
    if (die_at && known && is_newest_log(fd) && atomic_fetch_add(&syncs, 1) + 1 == die_at)
        kill(getpid(), SIGKILL);
    int result = real(fd);
    if (result == 0 && known && notes >= 0)
        dprintf(notes, "%lu %lld\n", (unsigned long)before.st_ino, (long long)before.st_size);
    return result;
}

int fsync(int fd) { return noted(fd, real_fsync); }
int fdatasync(int fd) { return noted(fd, real_fdatasync); }
