#if defined(__aarch64__)
#define VARIANT_TABLE xp_table_neon
#define VARIANT_NAME "neon"
#define VARIANT_FUSES 1
#include "bodies/all.h"
#endif
