// Counts the calls of each thread to the C allocator, Swift's own included: what proves that a warm step allocates nothing.
#ifndef CALLOCATION_COUNTER_H
#define CALLOCATION_COUNTER_H

// Calls to malloc, calloc, realloc, posix_memalign and aligned_alloc so far, on this thread.
unsigned long xp_allocations(void);

#endif
