// The baseline of the target: what every processor of the architecture runs.
#define VARIANT_TABLE xp_table_scalar
#define VARIANT_NAME "scalar"
#include "bodies/all.h"
