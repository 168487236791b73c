/* Ranks of MPI: sends tokens to experts of other processes and back, over a communicator of the program's.
 *
 * mpicc mpi.c $(pkg-config --cflags --libs crosspoint) -o mpi && mpirun -n 4 ./mpi */
#include <crosspoint.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 1000, HIDDEN = 64 };

/* An error that every rank has leaves them in step; after any other, others may wait for this rank. */
static void check(crosspoint_fabric *fabric, crosspoint_status status) {
  if (status == CROSSPOINT_OK) return;
  crosspoint_error error = CROSSPOINT_INIT(crosspoint_error);
  crosspoint_last_error(&error);
  if (fabric) crosspoint_fabric_abort(fabric, 1, error.text);
  fprintf(stderr, "%s\n", error.text);
  MPI_Abort(MPI_COMM_WORLD, 1);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  crosspoint_fabric *fabric;
  check(NULL, crosspoint_fabric_from_communicator(MPI_Comm_c2f(MPI_COMM_WORLD), NULL, &fabric));
  int32_t rank, ranks;
  check(fabric, crosspoint_fabric_rank(fabric, &rank, &ranks));
  crosspoint_exchange *exchange;
  check(fabric, crosspoint_exchange_create(fabric, 2 * ranks, HIDDEN, 0, argc > 1 ? argv[1] : "", &exchange));

  /* Fewer tokens on each rank, none on the last of several. */
  int tokens = ranks == 1 ? TOKENS : TOKENS * (ranks - 1 - rank) / ranks;
  static float x[TOKENS * HIDDEN], y[TOKENS * HIDDEN], weights[TOKENS];
  static int32_t experts[TOKENS];
  for (int t = 0; t < tokens; t++) {
    experts[t] = (7 * t + rank) % (2 * ranks);
    weights[t] = 1;
    for (int i = 0; i < HIDDEN; i++) x[t * HIDDEN + i] = (float)(rank + 1) / (float)(1 + t + i);
  }
  crosspoint_routing routing = CROSSPOINT_INIT(crosspoint_routing);
  routing.experts = experts;
  routing.weights = weights;
  routing.tokens = tokens;
  routing.top_k = 1;
  crosspoint_rows from = CROSSPOINT_INIT(crosspoint_rows), to;
  from.data = x;
  from.rows = tokens;
  from.columns = HIDDEN;
  to = from;
  to.data = y;

  /* Experts that change nothing: what comes back is what was sent, bit for bit. */
  crosspoint_handle *handle;
  check(fabric, crosspoint_dispatch(exchange, &from, &routing, &handle));
  crosspoint_rows rows = CROSSPOINT_INIT(crosspoint_rows);
  check(fabric, crosspoint_handle_rows(handle, &rows));
  check(fabric, crosspoint_combine(exchange, handle, &rows, &to));
  int equal = memcmp(x, y, sizeof(float) * (size_t)(tokens * HIDDEN)) == 0;
  printf("rank %d of %d: %d tokens, %s\n", rank, ranks, tokens, equal ? "the same bits" : "OTHER BITS");

  crosspoint_handle_free(handle);
  crosspoint_exchange_free(exchange);
  check(fabric, crosspoint_fabric_finalize(fabric));
  crosspoint_fabric_free(fabric);
  MPI_Finalize();
  return equal ? 0 : 1;
}
