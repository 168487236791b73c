/* The four transfers as XLA calls them, for python/crosspoint/jax.py; programs in C have no use for this.
 *
 * XLA's compiled programs call a foreign function with a frame: its arguments, results and attributes. The structs here are
 * those of xla/ffi/api/c_api.h as far as they are read, under names of our own, so that neither jaxlib nor a compiler is
 * needed to install. python/tests/test_xla.py compares their layout with jaxlib's header. */
#ifndef CROSSPOINT_XLA_H
#define CROSSPOINT_XLA_H

#include "crosspoint.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of XLA's interface that these structs came with. They have not changed since; XLA refuses to register functions
 * of a version that it does not support any more. */
#define CROSSPOINT_XLA_MAJOR 0
#define CROSSPOINT_XLA_MINOR 1

/* Types of elements and attributes, kinds of extensions, codes of errors. */
#define CROSSPOINT_XLA_UINT8 6
#define CROSSPOINT_XLA_BFLOAT16 16
#define CROSSPOINT_XLA_SCALAR 3
#define CROSSPOINT_XLA_METADATA 1
#define CROSSPOINT_XLA_INTERNAL 13

typedef struct crosspoint_xla_error crosspoint_xla_error;

typedef struct crosspoint_xla_extension {
  size_t size;
  int32_t type;
  struct crosspoint_xla_extension *next;
} crosspoint_xla_extension;

typedef struct crosspoint_xla_version {
  size_t size;
  crosspoint_xla_extension *extensions;
  int32_t major_version;
  int32_t minor_version;
} crosspoint_xla_version;

typedef struct crosspoint_xla_error_description {
  size_t size;
  crosspoint_xla_extension *extensions;
  /* Copied. */
  const char *message;
  int32_t code;
} crosspoint_xla_error_description;

/* The first of the functions that XLA offers. */
typedef struct crosspoint_xla_api {
  size_t size;
  crosspoint_xla_extension *extensions;
  crosspoint_xla_version version;
  const void *internal;
  crosspoint_xla_error *(*create_error)(crosspoint_xla_error_description *description);
} crosspoint_xla_api;

typedef struct crosspoint_xla_buffer {
  size_t size;
  crosspoint_xla_extension *extensions;
  int32_t type;
  void *data;
  int64_t rank;
  int64_t *dimensions;
} crosspoint_xla_buffer;

/* Arguments or results: pointers to buffers. */
typedef struct crosspoint_xla_buffers {
  size_t size;
  crosspoint_xla_extension *extensions;
  int64_t count;
  int32_t *kinds;
  crosspoint_xla_buffer **buffers;
} crosspoint_xla_buffers;

typedef struct crosspoint_xla_text {
  const char *start;
  size_t length;
} crosspoint_xla_text;

typedef struct crosspoint_xla_scalar {
  int32_t type;
  void *value;
} crosspoint_xla_scalar;

/* Sorted by name; ours are scalars. */
typedef struct crosspoint_xla_attributes {
  size_t size;
  crosspoint_xla_extension *extensions;
  int64_t count;
  int32_t *kinds;
  crosspoint_xla_text **names;
  crosspoint_xla_scalar **scalars;
} crosspoint_xla_attributes;

typedef struct crosspoint_xla_frame {
  size_t size;
  crosspoint_xla_extension *extensions;
  const crosspoint_xla_api *api;
  void *context;
  int32_t stage;
  crosspoint_xla_buffers arguments;
  crosspoint_xla_buffers results;
  crosspoint_xla_attributes attributes;
} crosspoint_xla_frame;

typedef struct crosspoint_xla_metadata {
  size_t size;
  crosspoint_xla_version version;
} crosspoint_xla_metadata;

/* XLA asks for it instead of a transfer when a function is registered. */
typedef struct crosspoint_xla_metadata_extension {
  crosspoint_xla_extension extension;
  crosspoint_xla_metadata *metadata;
} crosspoint_xla_metadata_extension;

/* By which number the functions below know an exchange as long as it lives. */
crosspoint_status crosspoint_xla_exchange(const crosspoint_exchange *exchange, int64_t *number);

/* Each takes the attributes `exchange`, its number, and `has_backward`: whether the transfer of this name's backward pass will
 * follow. Rows are [capacity x hidden], of which as many are in use as have come; those behind are zeros, and not read.
 * `memory` [8 bytes] names the dispatch. One transfer of a fabric runs at a time.
 *
 *                     arguments                                                       results
 *   dispatch          tokens, experts int32, weights, after float32[1], labels int32   rows, in use [capacity], memory, rows of
 *                     (may be absent)                                                  each expert int32
 *   combine           memory, outputs                                                  y, memory
 *   combine_backward  memory, gradient of y                                            gradient of outputs, of in use (zeros)
 *   dispatch_backward memory, gradient of rows, of in use                              gradients of tokens, weights, after (zero)
 *
 * In use: 1 where a row has come, else 0. If more have come than there is room for, rows are NaN, and combine fails on all
 * ranks. Returns NULL, or an error whose text is that of crosspoint_last_error, behind "on every rank: " where all have it. */
crosspoint_xla_error *crosspoint_xla_dispatch(crosspoint_xla_frame *frame);
crosspoint_xla_error *crosspoint_xla_combine(crosspoint_xla_frame *frame);
crosspoint_xla_error *crosspoint_xla_combine_backward(crosspoint_xla_frame *frame);
crosspoint_xla_error *crosspoint_xla_dispatch_backward(crosspoint_xla_frame *frame);

#ifdef __cplusplus
}
#endif

#endif
