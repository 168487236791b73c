/* Times the four transfers of one rank, one token and 8 floats, called from C: medians in µs, for overhead.py to compare with.
 * Usage: overhead STEPS */
#include <crosspoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HIDDEN = 8, CALLS = 5 };

static void check(crosspoint_status status) {
  if (status == CROSSPOINT_OK) return;
  crosspoint_error error = CROSSPOINT_INIT(crosspoint_error);
  crosspoint_last_error(&error);
  fprintf(stderr, "%s\n", error.text);
  exit(1);
}

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static crosspoint_rows rows_at(void *data) {
  crosspoint_rows rows = CROSSPOINT_INIT(crosspoint_rows);
  rows.data = data;
  rows.rows = 1;
  rows.columns = HIDDEN;
  return rows;
}

int main(int argc, char **argv) {
  int steps = argc == 2 ? atoi(argv[1]) : 0;
  if (steps < 1) return fprintf(stderr, "usage: overhead STEPS\n"), 2;
  float x[HIDDEN] = {1}, y[HIDDEN], weight = 1, weight_gradient;
  int32_t expert = 0;
  double *seconds[CALLS];
  for (int call = 0; call < CALLS; call++) seconds[call] = malloc(steps * sizeof(double));
  crosspoint_cluster *cluster;
  crosspoint_fabric *fabric;
  crosspoint_exchange *exchange;
  check(crosspoint_cluster_create(1, 1, NULL, &cluster));
  check(crosspoint_cluster_fabric(cluster, 0, &fabric));
  check(crosspoint_exchange_create(fabric, 1, HIDDEN, 0, "", &exchange));
  crosspoint_rows from = rows_at(x), to = rows_at(y);
  crosspoint_routing routing = CROSSPOINT_INIT(crosspoint_routing);
  routing.experts = &expert;
  routing.weights = &weight;
  routing.tokens = routing.top_k = 1;
  for (int step = 0; step < steps; step++) {
    crosspoint_handle *handle;
    crosspoint_rows rows = rows_at(NULL), gradients = rows_at(NULL);
    double times[CALLS + 1] = {microseconds()};
    check(crosspoint_dispatch(exchange, &from, &routing, &handle));
    check(crosspoint_handle_rows(handle, &rows));
    times[1] = microseconds();
    check(crosspoint_combine(exchange, handle, &rows, &to));
    times[2] = microseconds();
    check(crosspoint_combine_backward(exchange, handle, &from, &gradients));
    times[3] = microseconds();
    check(crosspoint_dispatch_backward(exchange, handle, &gradients, &to));
    times[4] = microseconds();
    check(crosspoint_handle_weight_gradients(handle, &weight_gradient, 1));
    crosspoint_handle_free(handle);
    times[5] = microseconds();
    for (int call = 0; call < CALLS; call++) seconds[call][step] = times[call + 1] - times[call];
  }
  for (int call = 0; call < CALLS; call++) {
    qsort(seconds[call], steps, sizeof(double), ascending);
    printf("%.3f ", seconds[call][steps / 2]);
  }
  printf("\n");
  crosspoint_exchange_free(exchange);
  crosspoint_fabric_free(fabric);
  crosspoint_cluster_free(cluster);
  return 0;
}
