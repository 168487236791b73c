/* What crosspoint.h says, checked on simulated ranks. Each claim is a function of one rank; the name of what fails is printed. */
#define _GNU_SOURCE
#include <crosspoint.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HIDDEN = 5, EXPERTS = 4, ROOM = 64 };

static const char *claim;
#define EXPECT(condition)                                                       \
  do {                                                                          \
    if (!(condition)) {                                                         \
      crosspoint_error last = CROSSPOINT_INIT(crosspoint_error);                \
      crosspoint_last_error(&last);                                             \
      fprintf(stderr, "%s: line %d: %s; last error: %s\n", claim, __LINE__, #condition, last.text); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)
#define OK(call) EXPECT((call) == CROSSPOINT_OK)

static crosspoint_error last_error(void) {
  crosspoint_error error = CROSSPOINT_INIT(crosspoint_error);
  crosspoint_last_error(&error);
  return error;
}

/* Whether the last error is this rank's, says so on every rank, and mentions a text. */
static int blames(int rank, const char *operation, const char *argument, const char *mentions) {
  crosspoint_error error = last_error();
  return error.rank == rank && error.is_agreed && strcmp(error.operation, operation) == 0 &&
         strcmp(error.argument, argument) == 0 && strstr(error.message, mentions) != NULL;
}

static crosspoint_rows rows_at(void *data, int64_t rows) {
  crosspoint_rows result = CROSSPOINT_INIT(crosspoint_rows);
  result.data = data;
  result.rows = rows;
  result.columns = HIDDEN;
  return result;
}

/* One rank's layer with tokens, routed to two experts each. */
typedef struct {
  int32_t rank, ranks;
  crosspoint_fabric *fabric;
  crosspoint_exchange *exchange;
  int64_t tokens;
  float x[ROOM * HIDDEN], y[ROOM * HIDDEN], dx[ROOM * HIDDEN], weights[2 * ROOM];
  int32_t experts[2 * ROOM];
  crosspoint_rows from, to, gradient;
  crosspoint_routing routing;
} layer;

static layer *make(crosspoint_fabric *fabric, const char *options, int64_t tokens) {
  layer *l = calloc(1, sizeof(layer));
  l->fabric = fabric;
  OK(crosspoint_fabric_rank(fabric, &l->rank, &l->ranks));
  OK(crosspoint_exchange_create(fabric, EXPERTS, HIDDEN, 0, options, &l->exchange));
  l->tokens = tokens;
  for (int t = 0; t < tokens; t++)
    for (int k = 0; k < 2; k++) {
      l->experts[2 * t + k] = (t + k + l->rank) % EXPERTS;
      l->weights[2 * t + k] = k ? 0.25f : 0.75f;
    }
  for (int i = 0; i < tokens * HIDDEN; i++) l->x[i] = 1 / (float)(1 + i + l->rank);
  l->from = rows_at(l->x, tokens);
  l->to = rows_at(l->y, tokens);
  l->gradient = rows_at(l->dx, tokens);
  l->routing = CROSSPOINT_INIT(crosspoint_routing);
  l->routing.experts = l->experts;
  l->routing.weights = l->weights;
  l->routing.tokens = tokens;
  l->routing.top_k = 2;
  return l;
}

static void end(layer *l) {
  crosspoint_exchange_free(l->exchange);
  free(l);
}

/* Forward and backward with identity experts. */
static void step(layer *l) {
  crosspoint_handle *handle;
  OK(crosspoint_dispatch(l->exchange, &l->from, &l->routing, &handle));
  crosspoint_rows rows = CROSSPOINT_INIT(crosspoint_rows), gradients = rows;
  OK(crosspoint_handle_rows(handle, &rows));
  OK(crosspoint_combine(l->exchange, handle, &rows, &l->to));
  OK(crosspoint_combine_backward(l->exchange, handle, &l->from, &gradients));
  OK(crosspoint_dispatch_backward(l->exchange, handle, &gradients, &l->gradient));
  crosspoint_handle_free(handle);
}

static void ranks_may_have_unequal_tokens_or_none(crosspoint_fabric *fabric) {
  int32_t rank;
  OK(crosspoint_fabric_rank(fabric, &rank, NULL));
  layer *l = make(fabric, NULL, rank == 0 ? 0 : 3 * rank);
  step(l);
  /* Identity experts: the weights add up to one. */
  for (int i = 0; i < l->tokens * HIDDEN; i++) {
    EXPECT(fabsf(l->y[i] - l->x[i]) < 1e-6f);
    EXPECT(fabsf(l->dx[i] - l->x[i]) < 1e-6f);
  }
  end(l);
}

static void rows_with_gaps_give_the_same_bits(crosspoint_fabric *fabric) {
  layer *plain = make(fabric, "", 7), *gaps = make(fabric, "", 7);
  enum { STRIDE = HIDDEN + 3 };
  float x[ROOM * STRIDE], y[ROOM * STRIDE], dx[ROOM * STRIDE];
  for (int i = 0; i < ROOM * STRIDE; i++) x[i] = y[i] = dx[i] = 777;
  for (int t = 0; t < 7; t++) memcpy(x + t * STRIDE, gaps->x + t * HIDDEN, sizeof(float) * HIDDEN);
  gaps->from.data = x;
  gaps->to.data = y;
  gaps->gradient.data = dx;
  gaps->from.stride = gaps->to.stride = gaps->gradient.stride = STRIDE;
  step(plain);
  step(gaps);
  for (int t = 0; t < 7; t++) {
    EXPECT(memcmp(y + t * STRIDE, plain->y + t * HIDDEN, sizeof(float) * HIDDEN) == 0);
    EXPECT(memcmp(dx + t * STRIDE, plain->dx + t * HIDDEN, sizeof(float) * HIDDEN) == 0);
    for (int i = HIDDEN; i < STRIDE; i++) EXPECT(y[t * STRIDE + i] == 777 && dx[t * STRIDE + i] == 777);
  }
  end(plain);
  end(gaps);
}

static uint16_t bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static float widened(uint16_t value) {
  uint32_t bits = (uint32_t)value << 16;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

/* Rows of bfloat16 with gaps, and of floats with the same values. */
static void bfloat16_rows_give_the_rounded_bits_of_floats(crosspoint_fabric *fabric) {
  layer *wide = make(fabric, "", 7), *narrow = make(fabric, "rows=bf16", 7);
  enum { STRIDE = HIDDEN + 3 };
  uint16_t x[ROOM * STRIDE], y[ROOM * STRIDE], dx[ROOM * STRIDE];
  for (int i = 0; i < ROOM * STRIDE; i++) x[i] = y[i] = dx[i] = 777;
  for (int t = 0; t < 7; t++)
    for (int i = 0; i < HIDDEN; i++) {
      x[t * STRIDE + i] = bfloat16(wide->x[t * HIDDEN + i]);
      wide->x[t * HIDDEN + i] = widened(x[t * STRIDE + i]);
    }
  narrow->from.data = x;
  narrow->to.data = y;
  narrow->gradient.data = dx;
  narrow->from.stride = narrow->to.stride = narrow->gradient.stride = STRIDE;
  narrow->from.type = narrow->to.type = narrow->gradient.type = CROSSPOINT_BFLOAT16;
  step(narrow);

  crosspoint_handle *handle;
  OK(crosspoint_dispatch(wide->exchange, &wide->from, &wide->routing, &handle));
  crosspoint_rows rows = CROSSPOINT_INIT(crosspoint_rows), gradients = rows;
  OK(crosspoint_handle_rows(handle, &rows));
  OK(crosspoint_combine(wide->exchange, handle, &rows, &wide->to));
  OK(crosspoint_combine_backward(wide->exchange, handle, &wide->from, &gradients));
  float *values = gradients.data;
  for (int i = 0; i < gradients.rows * HIDDEN; i++) values[i] = widened(bfloat16(values[i]));
  OK(crosspoint_dispatch_backward(wide->exchange, handle, &gradients, &wide->gradient));
  for (int t = 0; t < 7; t++) {
    for (int i = 0; i < HIDDEN; i++) {
      EXPECT(y[t * STRIDE + i] == bfloat16(wide->y[t * HIDDEN + i]));
      EXPECT(dx[t * STRIDE + i] == bfloat16(wide->dx[t * HIDDEN + i]));
    }
    for (int i = HIDDEN; i < STRIDE; i++) EXPECT(y[t * STRIDE + i] == 777 && dx[t * STRIDE + i] == 777);
  }
  crosspoint_handle_free(handle);
  OK(crosspoint_dispatch(narrow->exchange, &narrow->from, &narrow->routing, &handle));
  OK(crosspoint_handle_rows(handle, &rows));
  EXPECT(rows.columns == HIDDEN && rows.stride == HIDDEN && rows.type == CROSSPOINT_BFLOAT16);
  crosspoint_handle_free(handle);
  end(wide);
  end(narrow);
}

static void what_is_wrong_on_one_rank_is_named_on_all(crosspoint_fabric *fabric) {
  layer *l = make(fabric, "", 6);
  int odd = l->rank == 1;
  crosspoint_handle *handle;
  crosspoint_rows bad = l->from;
#define REFUSES(argument, mentions)                                                                \
  EXPECT(crosspoint_dispatch(l->exchange, odd ? &bad : &l->from, &l->routing, &handle) ==          \
         CROSSPOINT_INVALID_ARGUMENT);                                                             \
  EXPECT(blames(1, "dispatch", argument, mentions));                                               \
  bad = l->from
  bad.type = 7;
  REFUSES("tokens", "type 7; 0 (float32) or 1 (bfloat16) is expected");
  bad.type = CROSSPOINT_BFLOAT16;
  REFUSES("tokens", "bf16 rows, the exchange's options say fp32");
  bad.columns = 4;
  REFUSES("tokens", "hidden 4, the layout has 5");
  bad.columns = INT64_MAX / 2;
  bad.rows = 0;
  REFUSES("tokens", "are no shape");
  bad.rows = 5;
  REFUSES("routing", "6 tokens routed, the batch has 5");
  bad.stride = 3;
  REFUSES("tokens", "3 apart");
  bad.data = NULL;
  REFUSES("tokens", "6 rows at NULL");
  bad.data = (char *)l->x + 1;
  REFUSES("tokens", "no address of a float");
  bad.version = 2;
  REFUSES("tokens", "a struct of version 2");
  bad.rows = -1;
  REFUSES("tokens", "-1 rows");
  l->experts[3] = odd ? EXPERTS : 0;
  EXPECT(crosspoint_dispatch(l->exchange, &l->from, &l->routing, &handle) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "Routing", "topkIndices", "token 1 names expert 4 of 4"));
  l->experts[3] = 0;
  l->x[7] = odd ? NAN : 0;
  EXPECT(crosspoint_dispatch(l->exchange, &l->from, &l->routing, &handle) == CROSSPOINT_NON_FINITE);
  EXPECT(blames(1, "dispatch", "tokens", "row 1, column 2 is nan"));
  l->x[7] = 0;

  EXPECT(
      (odd ? crosspoint_exchange_refuse(l->exchange, NULL, CROSSPOINT_DISPATCH, "tokens", "a list")
           : crosspoint_dispatch(l->exchange, &l->from, &l->routing, &handle)) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "dispatch", "tokens", "a list"));

  OK(crosspoint_dispatch(l->exchange, &l->from, &l->routing, &handle));
  crosspoint_rows rows = CROSSPOINT_INIT(crosspoint_rows), gradients = rows;
  OK(crosspoint_handle_rows(handle, &rows));
  EXPECT(
      (odd ? crosspoint_exchange_refuse(l->exchange, handle, CROSSPOINT_COMBINE, "outputs", "a list")
           : crosspoint_combine(l->exchange, handle, &rows, &l->to)) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "combine", "outputs", "a list"));
  bad = l->to;
  bad.rows = 5;
  EXPECT(crosspoint_combine(l->exchange, handle, &rows, odd ? &bad : &l->to) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "combine", "result", "5 rows, 6 expected"));
  bad.type = 2;
  EXPECT(crosspoint_combine(l->exchange, handle, &rows, odd ? &bad : &l->to) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "combine", "result", "type 2"));
  EXPECT(crosspoint_combine_backward(l->exchange, handle, &l->from, &gradients) == CROSSPOINT_HANDLE_MISUSE);
  EXPECT(blames(0, "combineBackward", "handle", "dispatched"));
  OK(crosspoint_combine(l->exchange, handle, &rows, &l->to));
  bad = l->from;
  bad.type = 2;
  EXPECT(
      crosspoint_combine_backward(l->exchange, handle, odd ? &bad : &l->from, &gradients) ==
      CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "combineBackward", "result_gradient", "type 2"));
  OK(crosspoint_combine_backward(l->exchange, handle, &l->from, &gradients));
  bad = gradients;
  bad.type = 2;
  EXPECT(
      crosspoint_dispatch_backward(l->exchange, handle, odd ? &bad : &gradients, &l->gradient) ==
      CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "dispatchBackward", "row_gradients", "type 2"));
  OK(crosspoint_dispatch_backward(l->exchange, handle, &gradients, &l->gradient));
  crosspoint_handle_free(handle);
  end(l);
}

/* LearnedMemoryTests.swift and test_exchange.py have the same rows, and the same checksum. */
static void labels_give_the_bits_that_they_give_in_swift(crosspoint_fabric *fabric) {
  layer *l = make(fabric, "wire=entropy:3,memory=16", ROOM);
  int32_t labels[ROOM];
  for (int t = 0; t < ROOM; t++) {
    labels[t] = t % 4;
    for (int j = 0; j < HIDDEN; j++)
      l->x[t * HIDDEN + j] =
          (float)(3 * labels[t] * (j % 3 - 1)) + (float)((37 * t + 101 * j + 17 * l->rank) % 64) / 64;
  }
  l->routing.labels = labels;
  for (int i = 0; i < 10; i++) step(l);
  uint64_t sum = 0xcbf29ce484222325;
  for (size_t i = 0; i < sizeof(float) * HIDDEN * ROOM; i++) sum = (sum ^ ((uint8_t *)l->y)[i]) * 0x100000001b3;
  EXPECT(l->rank != 0 || sum == 0x2646b63c52031232);

  /* Programs that were compiled before there were labels have shorter structs. */
  crosspoint_handle *handle;
  l->routing.size = offsetof(crosspoint_routing, labels);
  l->routing.labels = (const int32_t *)1;
  OK(crosspoint_dispatch(l->exchange, &l->from, &l->routing, &handle));
  crosspoint_handle_free(handle);
  end(l);
}

static void a_label_out_of_range_is_named_on_every_rank(crosspoint_fabric *fabric) {
  layer *l = make(fabric, "wire=entropy:3,memory=16", 6);
  int32_t labels[6] = {0};
  crosspoint_handle *handle;
  l->routing.labels = labels;
  labels[4] = l->rank == 1 ? -2 : -1;
  EXPECT(crosspoint_dispatch(l->exchange, &l->from, &l->routing, &handle) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "dispatch", "labels", "token 4 has label -2"));
  labels[4] = l->rank == 1 ? (1 << 24) + 1 : 1 << 24;
  EXPECT(crosspoint_dispatch(l->exchange, &l->from, &l->routing, &handle) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "dispatch", "labels", "token 4 has label 16777217"));
  /* The ranks are in step, also where only one has labels. */
  labels[4] = 1 << 24;
  if (l->rank != 1) l->routing.labels = NULL;
  step(l);
  end(l);
}

static void options_are_checked_together(crosspoint_fabric *fabric) {
  int32_t rank;
  OK(crosspoint_fabric_rank(fabric, &rank, NULL));
  crosspoint_exchange *exchange;
  EXPECT(
      crosspoint_exchange_create(fabric, EXPERTS, HIDDEN, 0, rank == 2 ? "wire=bf17" : "wire=bf16", &exchange) ==
      CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(last_error().rank == 2 && last_error().is_agreed && strstr(last_error().message, "bf17"));
  EXPECT(
      crosspoint_exchange_create(fabric, EXPERTS, HIDDEN, 0, rank == 2 ? "" : "wire=bf16", &exchange) ==
      CROSSPOINT_RANKS_DISAGREE);
  EXPECT(strcmp(last_error().argument, "wire-dispatch") == 0);
  EXPECT(
      crosspoint_exchange_create(fabric, EXPERTS, HIDDEN, 0, "compensation=lowrank:2", &exchange) ==
      CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(
      crosspoint_exchange_create(fabric, EXPERTS, HIDDEN, rank == 2 ? -1 : 0, "", &exchange) ==
      CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(2, "ExpertExchange.init", "layer", "-1"));
  OK(crosspoint_exchange_create(fabric, EXPERTS, HIDDEN, 0, "wire=bf16,compression=lsh:functions=2,width=2", &exchange));
  EXPECT(strstr(crosspoint_exchange_options(exchange), "wire-combine=bf16"));
  int64_t first, count;
  OK(crosspoint_exchange_local_experts(exchange, &first, &count));
  /* Four experts on three ranks. */
  EXPECT(first == (rank == 0 ? 0 : rank + 1) && count == (rank == 0 ? 2 : 1));
  crosspoint_exchange_free(exchange);
}

static void rows_and_weights_are_those_of_the_routing(crosspoint_fabric *fabric) {
  layer *l = make(fabric, "copies=rank", 6);
  crosspoint_handle *handle;
  OK(crosspoint_dispatch(l->exchange, &l->from, &l->routing, &handle));
  crosspoint_rows rows = CROSSPOINT_INIT(crosspoint_rows), outputs = rows, gradients = rows;
  OK(crosspoint_handle_rows(handle, &rows));
  EXPECT(rows.columns == HIDDEN && rows.stride == HIDDEN && rows.type == CROSSPOINT_FLOAT32);
  int64_t per_expert[2], first, count, sum = 0;
  OK(crosspoint_exchange_local_experts(l->exchange, &first, &count));
  OK(crosspoint_handle_rows_per_expert(handle, per_expert, 2));
  for (int e = 0; e < count; e++) sum += per_expert[e];
  EXPECT(sum == rows.rows);
  EXPECT(crosspoint_handle_rows_per_expert(handle, per_expert, 0) == CROSSPOINT_INVALID_ARGUMENT);
  OK(crosspoint_handle_outputs(handle, &outputs));
  memcpy(outputs.data, rows.data, (size_t)(rows.rows * HIDDEN) * sizeof(float));
  OK(crosspoint_combine(l->exchange, handle, NULL, &l->to));
  float dw[12];
  EXPECT(crosspoint_handle_weight_gradients(handle, dw, 12) == CROSSPOINT_HANDLE_MISUSE);
  OK(crosspoint_combine_backward(l->exchange, handle, &l->from, &gradients));
  crosspoint_rows back = CROSSPOINT_INIT(crosspoint_rows);
  OK(crosspoint_handle_row_gradients(handle, &back));
  memcpy(back.data, gradients.data, (size_t)(rows.rows * HIDDEN) * sizeof(float));
  OK(crosspoint_dispatch_backward(l->exchange, handle, NULL, &l->gradient));
  EXPECT(crosspoint_handle_weight_gradients(handle, dw, 11) == CROSSPOINT_INVALID_ARGUMENT);
  OK(crosspoint_handle_weight_gradients(handle, dw, 12));
  for (int t = 0; t < 6; t++) {
    /* dL/dw = <dy, output> = |x|^2 for either choice. */
    float square = 0;
    for (int i = 0; i < HIDDEN; i++) square += l->x[t * HIDDEN + i] * l->x[t * HIDDEN + i];
    EXPECT(fabsf(dw[2 * t] - square) < 1e-5f && fabsf(dw[2 * t + 1] - square) < 1e-5f);
  }
  crosspoint_handle_free(handle);
  end(l);
}

static void the_vote_can_be_left_to_the_end_of_a_step(crosspoint_fabric *fabric) {
  layer *l = make(fabric, "agreement=deferred", 8);
  step(l);
  OK(crosspoint_exchange_settle(l->exchange));
  EXPECT(crosspoint_exchange_settle(NULL) == CROSSPOINT_INVALID_ARGUMENT);
  end(l);
}

static void statistics_count_what_was_moved(crosspoint_fabric *fabric) {
  layer *l = make(fabric, "", 8);
  step(l);
  crosspoint_statistics s = CROSSPOINT_INIT(crosspoint_statistics);
  OK(crosspoint_exchange_statistics(l->exchange, &s));
  EXPECT(s.dispatches == 1 && s.rows_routed == 16 && s.rows_sent == 16);
  EXPECT(s.wire_bytes[CROSSPOINT_DISPATCH] > 0 && s.wire_bytes[CROSSPOINT_DISPATCH_BACKWARD] > 0);
  EXPECT(s.peak_buffer_bytes > 0 && s.slowest_rank >= 0 && s.slowest_rank < 3);
  OK(crosspoint_exchange_reset_statistics(l->exchange));
  OK(crosspoint_exchange_statistics(l->exchange, &s));
  EXPECT(s.dispatches == 0 && s.wire_bytes[CROSSPOINT_COMBINE] == 0);
  s.version = 0;
  EXPECT(crosspoint_exchange_statistics(l->exchange, &s) == CROSSPOINT_INVALID_ARGUMENT);
  end(l);
}

static void a_saved_state_goes_on_bit_for_bit(crosspoint_fabric *fabric) {
  /* The rounding of gradients depends on the number of steps. */
  const char *options = "wire-gradient=rotated:4";
  layer *whole = make(fabric, options, 6), *resumed = make(fabric, options, 6);
  step(whole);
  int64_t needed;
  OK(crosspoint_exchange_save(whole->exchange, NULL, 0, &needed));
  char *text = malloc((size_t)needed);
  EXPECT(crosspoint_exchange_save(whole->exchange, text, needed - 1, NULL) == CROSSPOINT_INVALID_ARGUMENT);
  OK(crosspoint_exchange_save(whole->exchange, text, needed, NULL));
  EXPECT((int64_t)strlen(text) == needed - 1 && strchr(text, '\n') == NULL);
  EXPECT(crosspoint_exchange_restore(resumed->exchange, "{") == CROSSPOINT_CHECKPOINT_MISMATCH);
  OK(crosspoint_exchange_restore(resumed->exchange, text));
  step(whole);
  step(resumed);
  EXPECT(memcmp(whole->dx, resumed->dx, sizeof whole->dx) == 0);
  OK(crosspoint_exchange_set_adapts(whole->exchange, 0));
  free(text);
  end(whole);
  end(resumed);
}

static void two_exchanges_at_once_keep_apart(crosspoint_fabric *fabric) {
  layer *a = make(fabric, "", 5), *b = make(fabric, "wire=bf16", 9);
  crosspoint_handle *first, *second;
  OK(crosspoint_dispatch(a->exchange, &a->from, &a->routing, &first));
  OK(crosspoint_dispatch(b->exchange, &b->from, &b->routing, &second));
  crosspoint_rows rows = CROSSPOINT_INIT(crosspoint_rows);
  OK(crosspoint_handle_rows(first, &rows));
  EXPECT(crosspoint_combine(b->exchange, first, &rows, &b->to) == CROSSPOINT_HANDLE_MISUSE);
  OK(crosspoint_combine(a->exchange, first, &rows, &a->to));
  OK(crosspoint_handle_rows(second, &rows));
  OK(crosspoint_combine(b->exchange, second, &rows, &b->to));
  for (int i = 0; i < 5 * HIDDEN; i++) EXPECT(fabsf(a->y[i] - a->x[i]) < 1e-6f);
  for (int i = 0; i < 9 * HIDDEN; i++) EXPECT(fabsf(b->y[i] - b->x[i]) < 1e-2f);
  crosspoint_handle_free(first);
  crosspoint_handle_free(second);
  end(a);
  end(b);
}

/* Two micro-batches of two exchanges, all four transfers of a kind under way at once. */
static void begun_transfers_have_the_same_bits(crosspoint_fabric *fabric) {
  enum { LAYERS = 2, BATCHES = 2, ALL = LAYERS * BATCHES };
  layer *l[ALL];
  float expected[ALL][2][ROOM * HIDDEN];
  for (int i = 0; i < LAYERS; i++) l[i] = make(fabric, i ? "copies=rank" : "", 4 + 5 * i);
  for (int i = LAYERS; i < ALL; i++) {
    l[i] = malloc(sizeof(layer));
    *l[i] = *l[i % LAYERS];
    l[i]->from.data = l[i]->x;
    l[i]->to.data = l[i]->y;
    l[i]->gradient.data = l[i]->dx;
    for (int j = 0; j < l[i]->tokens * HIDDEN; j++) l[i]->x[j] += 1;
    l[i]->routing.experts = l[i]->experts;
    l[i]->routing.weights = l[i]->weights;
    if (l[i]->rank == 1) l[i]->from.rows = l[i]->to.rows = l[i]->gradient.rows = l[i]->routing.tokens = 0;
  }
  for (int i = 0; i < ALL; i++) {
    step(l[i]);
    memcpy(expected[i][0], l[i]->y, sizeof l[i]->y);
    memcpy(expected[i][1], l[i]->dx, sizeof l[i]->dx);
    memset(l[i]->y, 0, sizeof l[i]->y);
    memset(l[i]->dx, 0, sizeof l[i]->dx);
  }
  crosspoint_pending *pending[ALL];
  crosspoint_handle *handle[ALL];
  crosspoint_rows rows[ALL], gradients[ALL];
#define ALL_OF(call) \
  for (int i = 0; i < ALL; i++) OK(call)
#define FINISH()                                                                 \
  for (int i = 0; i < ALL; i++) {                                                \
    OK(crosspoint_pending_finish(pending[i]));                                   \
    EXPECT(crosspoint_pending_finish(pending[i]) == CROSSPOINT_HANDLE_MISUSE);   \
    crosspoint_pending_free(pending[i]);                                         \
  }
  ALL_OF(crosspoint_dispatch_begin(l[i]->exchange, &l[i]->from, &l[i]->routing, &handle[i], &pending[i]));
  OK(crosspoint_fabric_barrier(fabric));
  FINISH();
  for (int i = 0; i < ALL; i++) {
    rows[i] = gradients[i] = (crosspoint_rows)CROSSPOINT_INIT(crosspoint_rows);
    OK(crosspoint_handle_rows(handle[i], &rows[i]));
  }
  ALL_OF(crosspoint_combine_begin(l[i]->exchange, handle[i], &rows[i], &l[i]->to, &pending[i]));
  FINISH();
  ALL_OF(crosspoint_combine_backward_begin(l[i]->exchange, handle[i], &l[i]->from, &gradients[i], &pending[i]));
  FINISH();
  ALL_OF(crosspoint_dispatch_backward_begin(
      l[i]->exchange, handle[i], &gradients[i], &l[i]->gradient, &pending[i]));
  FINISH();
  for (int i = 0; i < ALL; i++) {
    size_t bytes = sizeof(float) * HIDDEN * (size_t)l[i]->from.rows;
    EXPECT(memcmp(expected[i][0], l[i]->y, bytes) == 0 && memcmp(expected[i][1], l[i]->dx, bytes) == 0);
    crosspoint_handle_free(handle[i]);
  }
  for (int i = LAYERS; i < ALL; i++) free(l[i]);
  for (int i = 0; i < LAYERS; i++) end(l[i]);
}

static void what_is_wrong_with_a_begun_transfer_is_told_when_it_is_finished(crosspoint_fabric *fabric) {
  layer *l = make(fabric, "", 6);
  crosspoint_handle *handle;
  crosspoint_pending *pending;
  crosspoint_rows bad = l->from;
  bad.type = 7;
  OK(crosspoint_dispatch_begin(l->exchange, l->rank == 1 ? &bad : &l->from, &l->routing, &handle, &pending));
  EXPECT(crosspoint_pending_finish(pending) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "dispatch", "tokens", "type 7"));
  crosspoint_pending_free(pending);
  OK(l->rank == 1
         ? crosspoint_exchange_refuse_begin(l->exchange, NULL, CROSSPOINT_DISPATCH, "tokens", "a list", &pending)
         : crosspoint_dispatch_begin(l->exchange, &l->from, &l->routing, &handle, &pending));
  EXPECT(crosspoint_pending_finish(pending) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(blames(1, "dispatch", "tokens", "a list"));
  crosspoint_pending_free(pending);
  /* Dropped unfinished. */
  OK(crosspoint_dispatch_begin(l->exchange, &l->from, &l->routing, &handle, &pending));
  crosspoint_pending_free(pending);
  step(l);
  EXPECT(crosspoint_pending_finish(NULL) == CROSSPOINT_INVALID_ARGUMENT);
  crosspoint_pending_free(NULL);
  end(l);
}

static long resident_pages(void) {
  long size, resident;
  FILE *file = fopen("/proc/self/statm", "r");
  EXPECT(file && fscanf(file, "%ld %ld", &size, &resident) == 2);
  fclose(file);
  return resident;
}

static void a_thousand_steps_take_no_more_memory(crosspoint_fabric *fabric) {
  layer *l = make(fabric, "", 40);
  long before = 0;
  for (int s = 0; s < 1000; s++) {
    if (s == 200) before = resident_pages();
    step(l);
  }
  EXPECT(resident_pages() - before < 256);
  end(l);
}

static void a_rank_that_leaves_says_why(crosspoint_fabric *fabric) {
  int32_t rank;
  OK(crosspoint_fabric_rank(fabric, &rank, NULL));
  if (rank == 1) {
    OK(crosspoint_fabric_leave(fabric, "the data are at an end"));
    return;
  }
  EXPECT(crosspoint_fabric_barrier(fabric) == CROSSPOINT_RANK_LOST);
  crosspoint_error error = last_error();
  EXPECT(!error.is_agreed && error.rank == 1 && strstr(error.text, "the data are at an end"));
}

static void a_rank_that_does_not_come_is_named_at_the_deadline(crosspoint_fabric *fabric) {
  int32_t rank;
  OK(crosspoint_fabric_rank(fabric, &rank, NULL));
  EXPECT(crosspoint_fabric_set_deadline(fabric, -1) == CROSSPOINT_INVALID_ARGUMENT);
  OK(crosspoint_fabric_set_deadline(fabric, rank == 0 ? 0.2 : 60));
  if (rank == 1) usleep(600000);
  crosspoint_status status = crosspoint_fabric_barrier(fabric);
  if (rank == 0) EXPECT(status == CROSSPOINT_DEADLINE_EXCEEDED && last_error().rank == 1);
  /* It came too late for rank 0, and hears so. */
  if (rank == 1) EXPECT(status == CROSSPOINT_DEADLINE_EXCEEDED);
}

static void errors_belong_to_a_thread(crosspoint_fabric *fabric) {
  int32_t rank;
  OK(crosspoint_fabric_rank(fabric, &rank, NULL));
  /* A new thread has none. */
  EXPECT(last_error().status == CROSSPOINT_OK && strcmp(last_error().text, "") == 0);
  EXPECT(crosspoint_fabric_set_deadline(fabric, -1 - rank) == CROSSPOINT_INVALID_ARGUMENT);
  OK(crosspoint_fabric_barrier(fabric));
  char own[32];
  snprintf(own, sizeof own, "%d.0 seconds", -1 - rank);
  EXPECT(strcmp(last_error().message, own) == 0 && strcmp(last_error().name, "invalidArgument") == 0);
}

static void sums_are_the_same_on_every_rank(crosspoint_fabric *fabric) {
  int32_t rank;
  OK(crosspoint_fabric_rank(fabric, &rank, NULL));
  float values[3] = {(float)rank, 1, 0.5f};
  EXPECT(crosspoint_fabric_allreduce(fabric, values, INT64_MAX / 2) == CROSSPOINT_INVALID_ARGUMENT);
  OK(crosspoint_fabric_allreduce(fabric, values, 3));
  EXPECT(values[0] == 3 && values[1] == 3 && values[2] == 1.5f);
  EXPECT(crosspoint_fabric_on_wait(fabric, NULL, NULL) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(crosspoint_fabric_abort(fabric, 1, NULL) == CROSSPOINT_INVALID_ARGUMENT);
  OK(crosspoint_fabric_finalize(fabric));
}

/* Rank r sends r + 2 p bytes to rank p, large ones where `factor` is. */
static void exchange_bytes(crosspoint_fabric *fabric, int64_t factor) {
  int32_t rank;
  OK(crosspoint_fabric_rank(fabric, &rank, NULL));
  const void *send[3];
  void *receive[3];
  int64_t send_bytes[3], receive_bytes[3], told[3];
  for (int p = 0; p < 3; p++) {
    send_bytes[p] = factor * (rank + 2 * p);
    char *bytes = malloc((size_t)send_bytes[p] + 1);
    memset(bytes, 1 + 3 * rank + p, (size_t)send_bytes[p]);
    send[p] = bytes;
  }
  /* Each tells the others how many. */
  const void *counts[3] = {&send_bytes[0], &send_bytes[1], &send_bytes[2]};
  void *places[3] = {&told[0], &told[1], &told[2]};
  const int64_t eight[3] = {8, 8, 8};
  OK(crosspoint_fabric_exchange(fabric, counts, eight, places, eight));
  for (int p = 0; p < 3; p++) {
    EXPECT(told[p] == factor * (p + 2 * rank));
    receive_bytes[p] = told[p];
    receive[p] = told[p] ? malloc((size_t)told[p]) : NULL;
  }
  OK(crosspoint_fabric_exchange(fabric, send, send_bytes, receive, receive_bytes));
  for (int p = 0; p < 3; p++) {
    for (int64_t i = 0; i < receive_bytes[p]; i++) EXPECT(((char *)receive[p])[i] == 1 + 3 * p + rank);
    free((void *)send[p]);
    free(receive[p]);
  }
}

static void bytes_reach_every_rank(crosspoint_fabric *fabric) {
  exchange_bytes(fabric, 1);
  exchange_bytes(fabric, 100000);
}

static void bytes_of_another_number_name_their_sender(crosspoint_fabric *fabric) {
  int32_t rank;
  OK(crosspoint_fabric_rank(fabric, &rank, NULL));
  OK(crosspoint_fabric_set_deadline(fabric, 0.5));
  char sent[8] = {0}, received[3][8];
  const void *send[3] = {sent, sent, sent};
  void *receive[3] = {received[0], received[1], received[2]};
  int64_t send_bytes[3] = {8, 8, 8}, receive_bytes[3] = {8, 8, 8};
  send_bytes[2] = -1;
  EXPECT(crosspoint_fabric_exchange(fabric, send, send_bytes, receive, receive_bytes) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(strcmp(last_error().argument, "send") == 0 && strstr(last_error().message, "-1 bytes"));
  send_bytes[2] = 8;
  receive[0] = NULL;
  EXPECT(crosspoint_fabric_exchange(fabric, send, send_bytes, receive, receive_bytes) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(strcmp(last_error().argument, "receive") == 0 && strstr(last_error().message, "8 bytes at NULL for rank 0"));
  EXPECT(crosspoint_fabric_exchange(fabric, send, NULL, receive, receive_bytes) == CROSSPOINT_INVALID_ARGUMENT);
  receive[0] = received[0];
  /* Ranks 1 and 2 do not agree. */
  if (rank == 1) send_bytes[2] = 5;
  crosspoint_status status = crosspoint_fabric_exchange(fabric, send, send_bytes, receive, receive_bytes);
  if (rank == 2) EXPECT(status == CROSSPOINT_TRUNCATED_FRAME && last_error().rank == 1 && !last_error().is_agreed);
}

static crosspoint_cluster *cluster;

static void a_cancelled_cluster_waits_for_nobody(crosspoint_fabric *fabric) {
  int32_t rank;
  OK(crosspoint_fabric_rank(fabric, &rank, NULL));
  if (rank == 2) {
    usleep(50000);
    crosspoint_cluster_cancel(cluster);
    return;
  }
  EXPECT(crosspoint_fabric_barrier(fabric) == CROSSPOINT_INTERRUPTED);
}

static void (*body)(crosspoint_fabric *);

static void *run(void *fabric) {
  body(fabric);
  crosspoint_fabric_free(fabric);
  return NULL;
}

static void null_is_refused(void) {
  claim = "null_is_refused";
  crosspoint_fabric *fabric;
  crosspoint_handle *handle = NULL;
  EXPECT(crosspoint_dispatch(NULL, NULL, NULL, &handle) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(strcmp(last_error().argument, "exchange") == 0 && last_error().rank == -1);
  EXPECT(crosspoint_cluster_create(2, 1, NULL, NULL) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(crosspoint_cluster_create(0, 1, NULL, &cluster) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(strcmp(last_error().argument, "ranks") == 0);
  OK(crosspoint_cluster_create(1, 1, NULL, &cluster));
  EXPECT(crosspoint_cluster_fabric(cluster, 1, &fabric) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(crosspoint_exchange_options(NULL) == NULL);
  crosspoint_cluster_free(cluster);
  crosspoint_cluster_free(NULL);
  crosspoint_fabric_free(NULL);
  crosspoint_exchange_free(NULL);
  crosspoint_handle_free(NULL);
  crosspoint_error unset = {0};
  EXPECT(crosspoint_last_error(&unset) == CROSSPOINT_INVALID_ARGUMENT);
  EXPECT(strcmp(crosspoint_status_name(CROSSPOINT_RANK_LOST), "rankLost") == 0);
  EXPECT(strcmp(crosspoint_status_name(0), "ok") == 0 && strcmp(crosspoint_status_name(99), "unknown") == 0);
  EXPECT(strlen(crosspoint_version()) > 0 && strstr(crosspoint_mpi_library(), "MPI"));
}

int main(void) {
#define CLAIM(name) {#name, name}
  const struct {
    const char *name;
    void (*body)(crosspoint_fabric *);
  } claims[] = {
      CLAIM(ranks_may_have_unequal_tokens_or_none),
      CLAIM(rows_with_gaps_give_the_same_bits),
      CLAIM(bfloat16_rows_give_the_rounded_bits_of_floats),
      CLAIM(what_is_wrong_on_one_rank_is_named_on_all),
      CLAIM(labels_give_the_bits_that_they_give_in_swift),
      CLAIM(a_label_out_of_range_is_named_on_every_rank),
      CLAIM(options_are_checked_together),
      CLAIM(rows_and_weights_are_those_of_the_routing),
      CLAIM(the_vote_can_be_left_to_the_end_of_a_step),
      CLAIM(statistics_count_what_was_moved),
      CLAIM(a_saved_state_goes_on_bit_for_bit),
      CLAIM(two_exchanges_at_once_keep_apart),
      CLAIM(begun_transfers_have_the_same_bits),
      CLAIM(what_is_wrong_with_a_begun_transfer_is_told_when_it_is_finished),
      CLAIM(a_thousand_steps_take_no_more_memory),
      CLAIM(a_rank_that_leaves_says_why),
      CLAIM(a_rank_that_does_not_come_is_named_at_the_deadline),
      CLAIM(errors_belong_to_a_thread),
      CLAIM(sums_are_the_same_on_every_rank),
      CLAIM(bytes_reach_every_rank),
      CLAIM(bytes_of_another_number_name_their_sender),
      CLAIM(a_cancelled_cluster_waits_for_nobody),
  };
  null_is_refused();
  for (size_t c = 0; c < sizeof claims / sizeof claims[0]; c++)
    for (int32_t per_node = 1; per_node <= 3; per_node += 2) {
      claim = claims[c].name;
      body = claims[c].body;
      OK(crosspoint_cluster_create(3, per_node, NULL, &cluster));
      pthread_t threads[3];
      for (int32_t rank = 0; rank < 3; rank++) {
        crosspoint_fabric *fabric;
        OK(crosspoint_cluster_fabric(cluster, rank, &fabric));
        pthread_create(&threads[rank], NULL, run, fabric);
      }
      for (int rank = 0; rank < 3; rank++) pthread_join(threads[rank], NULL);
      crosspoint_cluster_free(cluster);
    }
  printf("every claim holds\n");
  return 0;
}
