/* Simulated ranks: a step of a layer with one expert per rank, forward and backward, without MPI.
 *
 * cc simulated.c $(pkg-config --cflags --libs crosspoint) -lpthread -o simulated && ./simulated */
#include <crosspoint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { RANKS = 4, TOKENS = 6, HIDDEN = 8, TOP_K = 2 };

static void check(crosspoint_status status) {
  if (status == CROSSPOINT_OK) return;
  crosspoint_error error = CROSSPOINT_INIT(crosspoint_error);
  crosspoint_last_error(&error);
  fprintf(stderr, "%s\n", error.text);
  exit(1);
}

static crosspoint_rows rows_at(float *data, int64_t rows) {
  crosspoint_rows result = CROSSPOINT_INIT(crosspoint_rows);
  result.data = data;
  result.rows = rows;
  result.columns = HIDDEN;
  return result;
}

/* The expert of rank r multiplies by r + 1; its gradient does the same. */
static void scale(const crosspoint_rows *from, const crosspoint_rows *to, int rank) {
  const float *values = from->data;
  float *scaled = to->data;
  for (int64_t i = 0; i < from->rows * HIDDEN; i++) scaled[i] = (float)(rank + 1) * values[i];
}

static void step(crosspoint_fabric *fabric) {
  int32_t rank, ranks;
  check(crosspoint_fabric_rank(fabric, &rank, &ranks));
  crosspoint_exchange *exchange;
  check(crosspoint_exchange_create(fabric, ranks, HIDDEN, 0, "", &exchange));

  /* Token t goes to experts t and t + 1, with weights 0.75 and 0.25. */
  float x[TOKENS * HIDDEN], y[TOKENS * HIDDEN], dy[TOKENS * HIDDEN], dx[TOKENS * HIDDEN];
  int32_t experts[TOKENS * TOP_K];
  float weights[TOKENS * TOP_K];
  for (int t = 0; t < TOKENS; t++) {
    for (int k = 0; k < TOP_K; k++) {
      experts[t * TOP_K + k] = (t + k) % ranks;
      weights[t * TOP_K + k] = k == 0 ? 0.75f : 0.25f;
    }
    for (int i = 0; i < HIDDEN; i++) x[t * HIDDEN + i] = dy[t * HIDDEN + i] = (float)(rank + t);
  }
  crosspoint_routing routing = CROSSPOINT_INIT(crosspoint_routing);
  routing.experts = experts;
  routing.weights = weights;
  routing.tokens = TOKENS;
  routing.top_k = TOP_K;
  crosspoint_rows tokens = rows_at(x, TOKENS), result = rows_at(y, TOKENS);
  crosspoint_rows result_gradient = rows_at(dy, TOKENS), token_gradients = rows_at(dx, TOKENS);

  crosspoint_handle *handle;
  check(crosspoint_dispatch(exchange, &tokens, &routing, &handle));
  crosspoint_rows rows = CROSSPOINT_INIT(crosspoint_rows), outputs = rows;
  check(crosspoint_handle_rows(handle, &rows));
  check(crosspoint_handle_outputs(handle, &outputs));
  scale(&rows, &outputs, rank);
  check(crosspoint_combine(exchange, handle, NULL, &result));

  crosspoint_rows output_gradients = CROSSPOINT_INIT(crosspoint_rows);
  crosspoint_rows row_gradients = output_gradients;
  check(crosspoint_combine_backward(exchange, handle, &result_gradient, &output_gradients));
  check(crosspoint_handle_row_gradients(handle, &row_gradients));
  scale(&output_gradients, &row_gradients, rank);
  check(crosspoint_dispatch_backward(exchange, handle, NULL, &token_gradients));
  float weight_gradients[TOKENS * TOP_K];
  check(crosspoint_handle_weight_gradients(handle, weight_gradients, TOKENS * TOP_K));

  if (rank == 1) {
    printf("rank 1 of %d: %lld rows for its expert\n", ranks, (long long)rows.rows);
    for (int t = 0; t < TOKENS; t++)
      printf(
          "token %d: x %g, y %g, dx %g, dw %g %g\n", t, x[t * HIDDEN], y[t * HIDDEN], dx[t * HIDDEN],
          weight_gradients[t * TOP_K], weight_gradients[t * TOP_K + 1]);
  }
  crosspoint_handle_free(handle);
  crosspoint_exchange_free(exchange);
}

static void *run(void *fabric) {
  step(fabric);
  crosspoint_fabric_free(fabric);
  return NULL;
}

int main(void) {
  crosspoint_cluster *cluster;
  check(crosspoint_cluster_create(RANKS, RANKS, NULL, &cluster));
  pthread_t threads[RANKS];
  for (int32_t rank = 0; rank < RANKS; rank++) {
    crosspoint_fabric *fabric;
    check(crosspoint_cluster_fabric(cluster, rank, &fabric));
    pthread_create(&threads[rank], NULL, run, fabric);
  }
  for (int rank = 0; rank < RANKS; rank++) pthread_join(threads[rank], NULL);
  crosspoint_cluster_free(cluster);
  return 0;
}
