// Counts a thread's calls to the C allocator, Swift's own included, and its page faults: what proves that a warm step
// allocates nothing.
#ifndef CALLOCATION_COUNTER_H
#define CALLOCATION_COUNTER_H

// From now on the calls of this thread to malloc, calloc, realloc, posix_memalign and aligned_alloc are counted, but for
// those of the MPI library, whose pools for messages that come early grow to their size whenever the ranks' timing asks for
// it, and of OpenBLAS, which takes a kilobyte for some narrow products.
void xp_start_counting(void);

// Ends that; the number of calls.
unsigned long xp_stop_counting(void);

// Page faults of this thread since it began that needed no file: pages that it was the first to touch.
unsigned long xp_page_faults(void);

#endif
