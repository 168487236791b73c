/* Exchanges over two communicators of MPI at once, of all ranks and of every other one: their transfers take turns. */
#include <crosspoint.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>

enum { HIDDEN = 8, TOKENS = 6, EXPERTS = 4 };

static void check(crosspoint_status status) {
  if (status == CROSSPOINT_OK) return;
  crosspoint_error error = CROSSPOINT_INIT(crosspoint_error);
  crosspoint_last_error(&error);
  fprintf(stderr, "%s\n", error.text);
  MPI_Abort(MPI_COMM_WORLD, 1);
}

typedef struct {
  crosspoint_fabric *fabric;
  crosspoint_exchange *exchange;
  crosspoint_handle *handle;
  int32_t experts[TOKENS];
  float x[TOKENS * HIDDEN], y[TOKENS * HIDDEN], weights[TOKENS];
  crosspoint_rows from, to;
} layer;

static void make(layer *l, MPI_Comm comm, int tokens) {
  int32_t rank;
  check(crosspoint_fabric_from_communicator(MPI_Comm_c2f(comm), NULL, &l->fabric));
  check(crosspoint_fabric_rank(l->fabric, &rank, NULL));
  check(crosspoint_exchange_create(l->fabric, EXPERTS, HIDDEN, 0, "", &l->exchange));
  for (int t = 0; t < TOKENS; t++) {
    l->experts[t] = (t + rank) % EXPERTS;
    l->weights[t] = 1;
    for (int i = 0; i < HIDDEN; i++) l->x[t * HIDDEN + i] = (float)(1 + rank + t) / (float)(tokens + i);
  }
  l->from = CROSSPOINT_INIT(crosspoint_rows);
  l->from.data = l->x;
  l->from.rows = tokens;
  l->from.columns = HIDDEN;
  l->to = l->from;
  l->to.data = l->y;
}

static void dispatch(layer *l) {
  crosspoint_routing routing = CROSSPOINT_INIT(crosspoint_routing);
  routing.experts = l->experts;
  routing.weights = l->weights;
  routing.tokens = l->from.rows;
  routing.top_k = 1;
  check(crosspoint_dispatch(l->exchange, &l->from, &routing, &l->handle));
}

/* Experts change nothing: what comes home is what was sent, bit for bit. */
static int comes_home(layer *l) {
  crosspoint_rows rows = CROSSPOINT_INIT(crosspoint_rows);
  memset(l->y, 0, sizeof l->y);
  check(crosspoint_handle_rows(l->handle, &rows));
  check(crosspoint_combine(l->exchange, l->handle, &rows, &l->to));
  crosspoint_handle_free(l->handle);
  return memcmp(l->x, l->y, sizeof(float) * HIDDEN * (size_t)l->from.rows) == 0;
}

static void end(layer *l) {
  crosspoint_exchange_free(l->exchange);
  check(crosspoint_fabric_finalize(l->fabric));
  crosspoint_fabric_free(l->fabric);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm some;
  int rank, equal = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, 0, &some);
  static layer a, b;
  make(&a, MPI_COMM_WORLD, TOKENS - rank);
  make(&b, some, 1 + rank);
  for (int step = 0; step < 3; step++) {
    dispatch(&a);
    dispatch(&b);
    equal &= comes_home(&a);
    equal &= comes_home(&b);
  }
  printf("rank %d: %s\n", rank, equal ? "the same bits" : "OTHER BITS");
  end(&b);
  end(&a);
  MPI_Comm_free(&some);
  MPI_Finalize();
  return !equal;
}
