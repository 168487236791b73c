// Zstandard, as the operating system ships it.
#include <zstd.h>
