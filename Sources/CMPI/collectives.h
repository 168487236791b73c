// Collective operations.

static inline int cmpi_barrier(cmpi_comm comm) { return MPI_Barrier(comm.raw); }

static inline int cmpi_bcast(void *data, int count, cmpi_datatype type, int root, cmpi_comm comm) {
  return MPI_Bcast(data, count, type.raw, root, comm.raw);
}

static inline int cmpi_allreduce_in_place(void *data, int count, cmpi_datatype type, cmpi_op op, cmpi_comm comm) {
  return MPI_Allreduce(MPI_IN_PLACE, data, count, type.raw, op.raw, comm.raw);
}

static inline int cmpi_allgather(const void *mine, int count, cmpi_datatype type, void *all, cmpi_comm comm) {
  return MPI_Allgather(mine, count, type.raw, all, count, type.raw, comm.raw);
}

static inline int cmpi_allgatherv(
    const void *mine, int count, void *all, const int *counts, const int *offsets, cmpi_datatype type, cmpi_comm comm) {
  return MPI_Allgatherv(mine, count, type.raw, all, counts, offsets, type.raw, comm.raw);
}

static inline int cmpi_reduce_scatter(
    const void *all, void *mine, const int *counts, cmpi_datatype type, cmpi_op op, cmpi_comm comm) {
  return MPI_Reduce_scatter(all, mine, counts, type.raw, op.raw, comm.raw);
}

static inline int cmpi_alltoall(const void *send, int count, cmpi_datatype type, void *receive, cmpi_comm comm) {
  return MPI_Alltoall(send, count, type.raw, receive, count, type.raw, comm.raw);
}

static inline int cmpi_alltoallv(
    const void *send, const int *send_counts, const int *send_offsets, void *receive, const int *receive_counts,
    const int *receive_offsets, cmpi_datatype type, cmpi_comm comm) {
  return MPI_Alltoallv(
      send, send_counts, send_offsets, type.raw, receive, receive_counts, receive_offsets, type.raw, comm.raw);
}

static inline int cmpi_ialltoallv(
    const void *send, const int *send_counts, const int *send_offsets, void *receive, const int *receive_counts,
    const int *receive_offsets, cmpi_datatype type, cmpi_comm comm, cmpi_request *request) {
  return MPI_Ialltoallv(
      send, send_counts, send_offsets, type.raw, receive, receive_counts, receive_offsets, type.raw, comm.raw,
      &request->raw);
}
