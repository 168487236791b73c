// Every body, in the order in which they use one another.
#include "vectors.h"
#include "rows.h"
#include "table.h"
