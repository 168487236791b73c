/* Crosspoint for C: sends the tokens of mixture-of-experts models to the ranks that hold their experts, and back.
 *
 *   crosspoint_dispatch           tokens to the experts; gives the rows for this rank's experts
 *   crosspoint_combine            the experts' outputs home, weighted and summed
 *   crosspoint_combine_backward   the gradient of those sums to the experts
 *   crosspoint_dispatch_backward  the gradients of rows home, summed per token
 *
 * docs/c.md is the tutorial. What holds everywhere:
 *
 * - Every function that can fail returns a crosspoint_status: CROSSPOINT_OK, or a code whose number never changes. What
 *   went wrong, on which rank and with which argument, crosspoint_last_error says, for the calling thread.
 * - Every struct that a program fills begins with its size and the version of this interface: start from
 *   CROSSPOINT_INIT(type), or all bytes zero and those two set.
 * - Functions marked "collective" must be called by every rank of the fabric, in the same order, also with zero tokens.
 *   What is wrong on one rank is then an error on all: the same code, naming the rank. NULL for a handle is the exception:
 *   it is refused by the rank alone.
 * - A fabric, its exchanges and their handles belong to one thread at a time.
 * - Memory is the caller's, except rows received from other ranks, which are a handle's and stay until it is freed.
 * - Rows are fp32, or bf16 with the option rows=bf16, and contiguous within a row. Rows with gaps (stride > columns) are
 *   accepted and copied once.
 * - free functions take NULL, and never fail.
 */
#ifndef CROSSPOINT_H
#define CROSSPOINT_H

#include <stdint.h>

/* The version of this interface, which structs carry. It changes with their layout; a struct may grow at its end without. */
#define CROSSPOINT_INTERFACE 1

#ifdef __cplusplus
template <typename Struct> inline Struct crosspoint_init() {
  Struct value = Struct();
  value.size = (uint32_t)sizeof(Struct);
  value.version = CROSSPOINT_INTERFACE;
  return value;
}
#define CROSSPOINT_INIT(type) crosspoint_init<type>()
extern "C" {
#else
#define CROSSPOINT_INIT(type) ((type){.size = (uint32_t)sizeof(type), .version = CROSSPOINT_INTERFACE})
#endif

/* ---- Errors ---- */

typedef int32_t crosspoint_status;

#define CROSSPOINT_OK 0
/* A shape, count, pointer or option is out of range. */
#define CROSSPOINT_INVALID_ARGUMENT 1
/* A token, weight, output or gradient is NaN, infinite or beyond the bound of its wire format. */
#define CROSSPOINT_NON_FINITE 2
/* The ranks were given different options, layouts or orders of calls. */
#define CROSSPOINT_RANKS_DISAGREE 3
/* What was received does not decode. */
#define CROSSPOINT_CORRUPT_FRAME 4
/* A rank sent fewer or more bytes than it announced. */
#define CROSSPOINT_TRUNCATED_FRAME 5
/* A rank did not answer before the deadline; the error's rank is the silent one. */
#define CROSSPOINT_DEADLINE_EXCEEDED 6
/* A rank left while others still needed it. */
#define CROSSPOINT_RANK_LOST 7
/* A handle was used twice, out of order, or with another exchange. */
#define CROSSPOINT_HANDLE_MISUSE 8
#define CROSSPOINT_OUT_OF_MEMORY 9
/* MPI reported an error. */
#define CROSSPOINT_TRANSPORT 10
#define CROSSPOINT_FILE 11
/* A saved state belongs to another configuration. */
#define CROSSPOINT_CHECKPOINT_MISMATCH 12
/* Another rank refused its part of a step; the cause is that rank's error. */
#define CROSSPOINT_REFUSED_ELSEWHERE 13
/* The program asked to stop waiting, see crosspoint_fabric_on_wait and crosspoint_cluster_cancel. */
#define CROSSPOINT_INTERRUPTED 14

typedef struct crosspoint_error {
  uint32_t size;
  uint32_t version;
  crosspoint_status status;
  /* The rank on which it arose; -1: none. */
  int32_t rank;
  /* 1: every rank has this same error, and the fabric can be used again. 0: others may still wait; end the job. */
  int32_t is_agreed;
  int32_t reserved;
  /* The status by name, the call, the argument at fault, what was found and expected; and all of it in one line. Valid
   * until the next call of this thread that fails. Never NULL. */
  const char *name;
  const char *operation;
  const char *argument;
  const char *message;
  const char *text;
} crosspoint_error;

/* The last failure of the calling thread; CROSSPOINT_OK and empty texts if none has failed. A call that succeeds does not
 * clear it. Returns error->status, or CROSSPOINT_INVALID_ARGUMENT for a struct that is not one of this version. */
crosspoint_status crosspoint_last_error(crosspoint_error *error);

/* For example "nonFinite"; "ok" for CROSSPOINT_OK, "unknown" for numbers of a later version. */
const char *crosspoint_status_name(crosspoint_status status);

/* The version of the library, for example "0.1.0". */
const char *crosspoint_version(void);

/* ---- Ranks: processes of MPI, or threads of this process ---- */

typedef struct crosspoint_cluster crosspoint_cluster;
typedef struct crosspoint_fabric crosspoint_fabric;

typedef struct crosspoint_fabric_options {
  uint32_t size;
  uint32_t version;
  /* Seconds that a rank waits for another before it gives up and names it; 0: 60. */
  double deadline;
  /* 1: all travels in messages, also between ranks of a node that could share memory. */
  int32_t messages_only;
  int32_t reserved;
} crosspoint_fabric_options;

/* Simulated ranks, for experiments without MPI: the threads are the program's.
 *   ranks           1 to 65536
 *   ranks_per_node  so many ranks in a row form a node and share memory; at least 1
 *   options         NULL: the defaults */
crosspoint_status crosspoint_cluster_create(
    int32_t ranks, int32_t ranks_per_node, const crosspoint_fabric_options *options, crosspoint_cluster **cluster);
/* The fabric of one rank, for the thread that is that rank. Once for each rank. */
crosspoint_status crosspoint_cluster_fabric(crosspoint_cluster *cluster, int32_t rank, crosspoint_fabric **fabric);
/* Ends all waiting, now and later, from any thread: CROSSPOINT_INTERRUPTED. */
void crosspoint_cluster_cancel(crosspoint_cluster *cluster);
/* Fabrics may outlive it. */
void crosspoint_cluster_free(crosspoint_cluster *cluster);

/* All processes that mpirun started. Starts MPI unless the program has. Collective. options: NULL: the defaults. */
crosspoint_status crosspoint_fabric_world(const crosspoint_fabric_options *options, crosspoint_fabric **fabric);
/* The processes of a communicator, given as MPI_Comm_c2f(comm), which is duplicated; where the library is built for the MPI
 * standard's own ABI, as MPI_Comm_toint(comm). MPI must be running, and be the one that this library is linked with: see
 * crosspoint_mpi_library. Collective over the communicator. */
crosspoint_status crosspoint_fabric_from_communicator(
    int64_t fortran_handle, const crosspoint_fabric_options *options, crosspoint_fabric **fabric);
/* What MPI_Get_library_version says to this library, on one line. */
const char *crosspoint_mpi_library(void);

crosspoint_status crosspoint_fabric_rank(const crosspoint_fabric *fabric, int32_t *rank, int32_t *rank_count);
crosspoint_status crosspoint_fabric_set_deadline(crosspoint_fabric *fabric, double seconds);
/* check(context) is called some twenty times a second while this rank waits for others: not 0 ends the wait with
 * CROSSPOINT_INTERRUPTED and makes the fabric unusable. NULL: none. Fabrics of MPI only; others use
 * crosspoint_cluster_cancel. */
crosspoint_status crosspoint_fabric_on_wait(
    crosspoint_fabric *fabric, int32_t (*check)(void *context), void *context);
/* Returns when every rank has called it. Collective. */
crosspoint_status crosspoint_fabric_barrier(crosspoint_fabric *fabric);
/* Sums count floats over all ranks, in place, in the order of ranks: the same bits on each and in every run. Collective. */
crosspoint_status crosspoint_fabric_allreduce(crosspoint_fabric *fabric, float *values, int64_t count);
/* Sends bytes to every rank and receives bytes from every rank, itself among them. Collective.
 *   send, send_bytes        [ranks]: for each rank where its bytes are, and how many
 *   receive, receive_bytes  [ranks]: for each rank where its bytes go, and how many it sends here. Those places overlap
 *                           neither each other nor what is sent
 * How many come a rank must know; if it does not, tell it in an exchange of 8 bytes before. A rank that sends another number
 * is named by CROSSPOINT_TRUNCATED_FRAME. Arguments that cannot be are refused by the rank alone. */
crosspoint_status crosspoint_fabric_exchange(
    crosspoint_fabric *fabric, const void *const *send, const int64_t *send_bytes, void *const *receive,
    const int64_t *receive_bytes);
/* Waits for every rank, then ends MPI if crosspoint_fabric_world started it. The last call of every rank after success and
 * after an agreed error. Collective. */
crosspoint_status crosspoint_fabric_finalize(crosspoint_fabric *fabric);
/* Ends every process of an MPI job at once; does not return. Of ranks that call it about one failure exactly one writes
 * `report` (a line, on standard error; NULL: nothing). For a simulated rank: see crosspoint_fabric_leave. */
crosspoint_status crosspoint_fabric_abort(crosspoint_fabric *fabric, int32_t exit_code, const char *report);
/* This rank takes no part any more, and says why: others that wait for it get CROSSPOINT_RANK_LOST with that text. For
 * simulated ranks; a process of MPI that leaves is noticed at the deadline. reason: NULL: it returned. */
crosspoint_status crosspoint_fabric_leave(crosspoint_fabric *fabric, const char *reason);
/* A simulated rank that has not left leaves. Exchanges keep what they need of it. */
void crosspoint_fabric_free(crosspoint_fabric *fabric);

/* ---- Exchanges: one per layer ---- */

typedef struct crosspoint_exchange crosspoint_exchange;
/* What a dispatch leaves for its combine and its backward pass. */
typedef struct crosspoint_handle crosspoint_handle;

/* The layout of experts: rank r of R holds a contiguous block; the first experts mod R ranks hold one more.
 *   experts   over all ranks, 1 to 2^20
 *   hidden    floats per token, 1 to 2^24
 *   layer     which layer of the model it serves, from 0: the rounding of gradients draws other numbers for each
 *   options   NAME=VALUE,… by the names of the command line, for example
 *             "compression=lsh:functions=2,wire=rotated:4,copies=rank"; NULL or "": lossless fp32
 * Collective: refuses ranks that differ. */
crosspoint_status crosspoint_exchange_create(
    crosspoint_fabric *fabric, int64_t experts, int64_t hidden, int32_t layer, const char *options,
    crosspoint_exchange **exchange);
/* The experts of this rank: first ... first + count - 1. */
crosspoint_status crosspoint_exchange_local_experts(
    const crosspoint_exchange *exchange, int64_t *first, int64_t *count);
/* The options in full, as ranks compare them. Valid as long as the exchange. */
const char *crosspoint_exchange_options(const crosspoint_exchange *exchange);
/* Handles may outlive it, but are then of no use. */
void crosspoint_exchange_free(crosspoint_exchange *exchange);

/* ---- The four transfers ---- */

#define CROSSPOINT_DISPATCH 0
#define CROSSPOINT_COMBINE 1
#define CROSSPOINT_COMBINE_BACKWARD 2
#define CROSSPOINT_DISPATCH_BACKWARD 3

#define CROSSPOINT_FLOAT32 0
#define CROSSPOINT_BFLOAT16 1

/* Rows of numbers. Memory that is only read is never written to through it. */
typedef struct crosspoint_rows {
  uint32_t size;
  uint32_t version;
  /* May be NULL for zero rows. */
  void *data;
  int64_t rows;
  /* Numbers per row: the layout's hidden. */
  int64_t columns;
  /* Numbers from the start of one row to that of the next, at least columns; 0: columns. Others are copied once. */
  int64_t stride;
  /* CROSSPOINT_FLOAT32, or with the option rows=bf16 CROSSPOINT_BFLOAT16; anything else is refused. */
  int32_t type;
  int32_t reserved;
} crosspoint_rows;

/* Where each token goes. It is read during dispatch, and not kept. */
typedef struct crosspoint_routing {
  uint32_t size;
  uint32_t version;
  /* [tokens x top_k]: experts; -1: this choice is not sent. */
  const int32_t *experts;
  /* [tokens x top_k]: what the outputs are multiplied by when they are summed. */
  const float *weights;
  int64_t tokens;
  int32_t top_k;
  int32_t reserved;
  /* [tokens]: -1 (none) to 2^24, the same for tokens that resemble each other, for example their number in the vocabulary: the
   * option memory=N makes use of them. NULL: no token has one. Absent from the 40 bytes of earlier programs. */
  const int32_t *labels;
} crosspoint_routing;

/* Sends every routed token to the rank of its expert. Collective.
 *   tokens   [T x hidden]; T may be zero and differ between ranks
 *   handle   set to a new handle; use it once, in the order dispatch, combine, combine_backward, dispatch_backward, and
 *            free it */
crosspoint_status crosspoint_dispatch(
    crosspoint_exchange *exchange, const crosspoint_rows *tokens, const crosspoint_routing *routing,
    crosspoint_handle **handle);
/* What was received: [rows x hidden], grouped by local expert, within an expert by source rank. The handle's memory. */
crosspoint_status crosspoint_handle_rows(crosspoint_handle *handle, crosspoint_rows *rows);
/* Rows of each local expert, as many numbers as there are local experts; count says how many there is room for. */
crosspoint_status crosspoint_handle_rows_per_expert(
    const crosspoint_handle *handle, int64_t *rows_per_expert, int64_t count);
/* Memory for the experts' outputs, in the order of the rows: other ranks of the node read it where it lies. Uninitialised.
 * Leave it unchanged from combine until combine_backward has returned. */
crosspoint_status crosspoint_handle_outputs(crosspoint_handle *handle, crosspoint_rows *outputs);
/* Brings the outputs home and sums them: y[t] = sum over k of weight[t][k] * output. Collective.
 *   outputs  [rows x hidden], in the order of the rows; NULL: crosspoint_handle_outputs
 *   result   [T x hidden], written; zeros for tokens that were sent nowhere; undefined after an error */
crosspoint_status crosspoint_combine(
    crosspoint_exchange *exchange, crosspoint_handle *handle, const crosspoint_rows *outputs,
    const crosspoint_rows *result);
/* Sends the gradient of the result to the experts. Collective.
 *   result_gradient   [T x hidden]
 *   output_gradients  set to [rows x hidden], in the order of the rows; the handle's memory */
crosspoint_status crosspoint_combine_backward(
    crosspoint_exchange *exchange, crosspoint_handle *handle, const crosspoint_rows *result_gradient,
    crosspoint_rows *output_gradients);
/* Memory for the gradients of rows, as crosspoint_handle_outputs. */
crosspoint_status crosspoint_handle_row_gradients(crosspoint_handle *handle, crosspoint_rows *row_gradients);
/* Brings the gradients of rows home and sums them per token. Collective.
 *   row_gradients    [rows x hidden]; NULL: crosspoint_handle_row_gradients
 *   token_gradients  [T x hidden], written; undefined after an error */
crosspoint_status crosspoint_dispatch_backward(
    crosspoint_exchange *exchange, crosspoint_handle *handle, const crosspoint_rows *row_gradients,
    const crosspoint_rows *token_gradients);
/* The gradients of the routing's weights, [T x top_k]; 0 where a choice was not sent. Complete after combine_backward; with
 * copies=rank or node after dispatch_backward. count says how many there is room for. */
crosspoint_status crosspoint_handle_weight_gradients(
    const crosspoint_handle *handle, float *gradients, int64_t count);
/* Takes part in a transfer only to fail it: every rank gets CROSSPOINT_INVALID_ARGUMENT with this argument and message. For
 * bindings, whose own checks must not keep a rank from a collective call.
 *   handle    NULL for a dispatch
 *   transfer  CROSSPOINT_DISPATCH ... */
crosspoint_status crosspoint_exchange_refuse(
    crosspoint_exchange *exchange, crosspoint_handle *handle, int32_t transfer, const char *argument,
    const char *message);
/* Returns when no rank has failed in any transfer so far, of whichever exchange of the fabric; else the error, the same on
 * every rank. For agreement=deferred: at the end of a step, before anything is kept of its results. */
crosspoint_status crosspoint_exchange_settle(crosspoint_exchange *exchange);
/* Gives the handle's memory back to its exchange. */
void crosspoint_handle_free(crosspoint_handle *handle);

/* ---- Transfers that are begun, and finished later ---- */

/* A transfer under way. */
typedef struct crosspoint_pending crosspoint_pending;

/* Each transfer can be begun, so that a rank does something else while bytes are under way. Takes the arguments of the
 * plain call, whose memory must stay where and as it is until the transfer is finished; then all that the call gives is there,
 * with the same bits. Collective, but waits for nobody. Any number can be under way, also of several exchanges: all ranks
 * begin and finish them in the same order, and between them all else that communicates. What is wrong on one rank is what
 * crosspoint_pending_finish returns, on every rank. With a budget one transfer of an exchange can be under way.
 *   pending   set to what is to be finished, once, and freed; NULL: the transfer is finished at once */
crosspoint_status crosspoint_dispatch_begin(
    crosspoint_exchange *exchange, const crosspoint_rows *tokens, const crosspoint_routing *routing,
    crosspoint_handle **handle, crosspoint_pending **pending);
crosspoint_status crosspoint_combine_begin(
    crosspoint_exchange *exchange, crosspoint_handle *handle, const crosspoint_rows *outputs,
    const crosspoint_rows *result, crosspoint_pending **pending);
crosspoint_status crosspoint_combine_backward_begin(
    crosspoint_exchange *exchange, crosspoint_handle *handle, const crosspoint_rows *result_gradient,
    crosspoint_rows *output_gradients, crosspoint_pending **pending);
crosspoint_status crosspoint_dispatch_backward_begin(
    crosspoint_exchange *exchange, crosspoint_handle *handle, const crosspoint_rows *row_gradients,
    const crosspoint_rows *token_gradients, crosspoint_pending **pending);
/* As crosspoint_exchange_refuse, where the others have only begun the transfer. */
crosspoint_status crosspoint_exchange_refuse_begin(
    crosspoint_exchange *exchange, crosspoint_handle *handle, int32_t transfer, const char *argument,
    const char *message, crosspoint_pending **pending);
/* Waits for the transfer. Collective. CROSSPOINT_HANDLE_MISUSE the second time, on this rank alone. */
crosspoint_status crosspoint_pending_finish(crosspoint_pending *pending);
/* Collective if it has not been finished: it is then, and its errors are lost. Its memory must still be there. */
void crosspoint_pending_free(crosspoint_pending *pending);

/* ---- Statistics and checkpoints ---- */

/* What this rank moved since the last reset; arrays are by transfer. */
typedef struct crosspoint_statistics {
  uint32_t size;
  uint32_t version;
  int64_t dispatches;
  /* Routed (token, choice) pairs, and the rows that stood for them. */
  int64_t rows_routed;
  int64_t rows_sent;
  /* Bytes that left this rank, by transfer; of these, those to ranks that share its memory. */
  int64_t wire_bytes[4];
  int64_t node_bytes[4];
  /* What rows of every routed token, as they lie in memory, would have taken, and what stayed on this rank. */
  int64_t uncompressed_bytes[4];
  int64_t local_bytes[4];
  /* Sums over routed tokens: the squared distance to the row that stood for each, and the squared length; 0 without
   * clusters. */
  double residual_squared;
  double token_squared;
  /* Seconds. */
  double hash_seconds;
  double cluster_seconds;
  double encode_seconds;
  double skew_seconds;
  double wait_seconds;
  double decode_seconds;
  double policy_seconds;
  /* The rank that was last most often to reach a transfer. */
  int64_t slowest_rank;
  /* The most bytes that buffers held at any moment. */
  int64_t peak_buffer_bytes;
} crosspoint_statistics;

crosspoint_status crosspoint_exchange_statistics(
    const crosspoint_exchange *exchange, crosspoint_statistics *statistics);
crosspoint_status crosspoint_exchange_reset_statistics(crosspoint_exchange *exchange);
/* What training needs to go on bit for bit, as a text without line breaks; the same on every rank.
 *   text      room for `capacity` bytes; NULL to ask for the size
 *   needed    set to the bytes of the text, its final zero included */
crosspoint_status crosspoint_exchange_save(
    const crosspoint_exchange *exchange, char *text, int64_t capacity, int64_t *needed);
/* Continues from a saved text: on every rank or on none. */
crosspoint_status crosspoint_exchange_restore(crosspoint_exchange *exchange, const char *text);
/* Whether a budget goes on choosing and a memory learning: 0 while evaluating, so that training continues as if there had been
 * no evaluation. */
crosspoint_status crosspoint_exchange_set_adapts(crosspoint_exchange *exchange, int32_t adapts);

#ifdef __cplusplus
}
#endif

#endif
