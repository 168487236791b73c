/* A job of MPI whose rank 1 takes no part in a transfer: it is killed, or ends for a reason of its own. */
#include <crosspoint.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { HIDDEN = 8 };

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  crosspoint_fabric *fabric;
  crosspoint_exchange *exchange;
  int32_t rank, ranks;
  if (crosspoint_fabric_from_communicator(MPI_Comm_c2f(MPI_COMM_WORLD), NULL, &fabric) != CROSSPOINT_OK ||
      crosspoint_fabric_rank(fabric, &rank, &ranks) != CROSSPOINT_OK ||
      crosspoint_exchange_create(fabric, ranks, HIDDEN, 0, "", &exchange) != CROSSPOINT_OK)
    return 2;
  if (rank == 1) {
    if (argc > 1 && strcmp(argv[1], "killed") == 0) raise(SIGKILL);
    crosspoint_fabric_abort(fabric, 3, "the data are at an end");
  }
  float x[HIDDEN] = {1}, weight = 1;
  int32_t expert = 1;
  crosspoint_routing routing = CROSSPOINT_INIT(crosspoint_routing);
  routing.experts = &expert;
  routing.weights = &weight;
  routing.tokens = 1;
  routing.top_k = 1;
  crosspoint_rows from = CROSSPOINT_INIT(crosspoint_rows);
  from.data = x;
  from.rows = 1;
  from.columns = HIDDEN;
  crosspoint_handle *handle;
  if (crosspoint_dispatch(exchange, &from, &routing, &handle) == CROSSPOINT_OK) puts("a transfer without rank 1");
  crosspoint_fabric_abort(fabric, 1, "rank 1 is lost");
}
