// Files that live in memory alone and end with the last process that has them open: Linux's memfd. Elsewhere none is had.
//
// Functions that return a pointer or a descriptor return NULL or -1 on failure, with errno set.

#ifndef CSHAREDMEMORY_H
#define CSHAREDMEMORY_H

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#if defined(__linux__)

#include <linux/falloc.h>
#include <linux/memfd.h>
#include <sys/syscall.h>
#include <unistd.h>

// Newer than some headers.
#define XP_POPULATE_WRITE 23

/// A file of so many bytes, none of which takes memory yet. A program that this one executes does not get it.
static inline int xp_memory_create(const char *name, long bytes) {
  int descriptor = (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC);
  if (descriptor >= 0 && ftruncate(descriptor, bytes) != 0) {
    int error = errno;
    close(descriptor);
    errno = error;
    return -1;
  }
  return descriptor;
}

/// Gives memory of a file back to the system; whoever has mapped it reads zeros.
static inline void xp_memory_discard(int descriptor, long offset, long bytes) {
  syscall(SYS_fallocate, descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
}

/// Maps part of a file that has its memory.
static inline void *xp_memory_map(int descriptor, long offset, long bytes) {
  void *base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, offset);
  return base == MAP_FAILED ? NULL : base;
}

/// Maps part of a file and gives it memory now: a machine that is full shows here, not by a SIGBUS later.
static inline void *xp_memory_provide(int descriptor, long offset, long bytes) {
  // Memory of a file is not checked against what the machine has; memory of a process is.
  void *base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return NULL;
  munmap(base, (size_t)bytes);
  base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, offset);
  if (base == MAP_FAILED) return NULL;
  if (madvise(base, (size_t)bytes, XP_POPULATE_WRITE) == 0) return base;
  // Linux before 5.14 does not know the request.
  if (errno == EINVAL && syscall(SYS_fallocate, descriptor, 0, offset, bytes) == 0) return base;
  int error = errno;
  munmap(base, (size_t)bytes);
  xp_memory_discard(descriptor, offset, bytes);
  errno = error;
  return NULL;
}

#else

static inline int xp_memory_create(const char *name, long bytes) {
  errno = ENOSYS;
  return -1;
}

static inline void *xp_memory_map(int descriptor, long offset, long bytes) { return NULL; }
static inline void *xp_memory_provide(int descriptor, long offset, long bytes) { return NULL; }
static inline void xp_memory_discard(int descriptor, long offset, long bytes) {}

#endif

#endif
