/* The layout of every struct of crosspoint.h, as interface.txt keeps it. */
#include <crosspoint.h>
#include <stddef.h>
#include <stdio.h>

#define STRUCT(type) printf("struct " #type " %zu\n", sizeof(type))
#define FIELD(type, field) printf("  %zu " #field " %zu\n", offsetof(type, field), sizeof(((type *)0)->field))

int main(void) {
  STRUCT(crosspoint_error);
  FIELD(crosspoint_error, size);
  FIELD(crosspoint_error, version);
  FIELD(crosspoint_error, status);
  FIELD(crosspoint_error, rank);
  FIELD(crosspoint_error, is_agreed);
  FIELD(crosspoint_error, reserved);
  FIELD(crosspoint_error, name);
  FIELD(crosspoint_error, operation);
  FIELD(crosspoint_error, argument);
  FIELD(crosspoint_error, message);
  FIELD(crosspoint_error, text);
  STRUCT(crosspoint_fabric_options);
  FIELD(crosspoint_fabric_options, size);
  FIELD(crosspoint_fabric_options, version);
  FIELD(crosspoint_fabric_options, deadline);
  FIELD(crosspoint_fabric_options, messages_only);
  FIELD(crosspoint_fabric_options, reserved);
  STRUCT(crosspoint_rows);
  FIELD(crosspoint_rows, size);
  FIELD(crosspoint_rows, version);
  FIELD(crosspoint_rows, data);
  FIELD(crosspoint_rows, rows);
  FIELD(crosspoint_rows, columns);
  FIELD(crosspoint_rows, stride);
  FIELD(crosspoint_rows, type);
  FIELD(crosspoint_rows, reserved);
  STRUCT(crosspoint_routing);
  FIELD(crosspoint_routing, size);
  FIELD(crosspoint_routing, version);
  FIELD(crosspoint_routing, experts);
  FIELD(crosspoint_routing, weights);
  FIELD(crosspoint_routing, tokens);
  FIELD(crosspoint_routing, top_k);
  FIELD(crosspoint_routing, reserved);
  FIELD(crosspoint_routing, labels);
  STRUCT(crosspoint_statistics);
  FIELD(crosspoint_statistics, size);
  FIELD(crosspoint_statistics, version);
  FIELD(crosspoint_statistics, dispatches);
  FIELD(crosspoint_statistics, rows_routed);
  FIELD(crosspoint_statistics, rows_sent);
  FIELD(crosspoint_statistics, wire_bytes);
  FIELD(crosspoint_statistics, node_bytes);
  FIELD(crosspoint_statistics, uncompressed_bytes);
  FIELD(crosspoint_statistics, local_bytes);
  FIELD(crosspoint_statistics, residual_squared);
  FIELD(crosspoint_statistics, token_squared);
  FIELD(crosspoint_statistics, hash_seconds);
  FIELD(crosspoint_statistics, cluster_seconds);
  FIELD(crosspoint_statistics, encode_seconds);
  FIELD(crosspoint_statistics, skew_seconds);
  FIELD(crosspoint_statistics, wait_seconds);
  FIELD(crosspoint_statistics, decode_seconds);
  FIELD(crosspoint_statistics, policy_seconds);
  FIELD(crosspoint_statistics, slowest_rank);
  FIELD(crosspoint_statistics, peak_buffer_bytes);
  return 0;
}
