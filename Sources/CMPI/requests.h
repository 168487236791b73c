// Point-to-point messages and requests.

static inline int cmpi_send(const void *data, int count, cmpi_datatype type, int to, int tag, cmpi_comm comm) {
  return MPI_Send(data, count, type.raw, to, tag, comm.raw);
}

static inline int cmpi_recv(
    void *data, int count, cmpi_datatype type, int from, int tag, cmpi_comm comm, MPI_Status *status) {
  return MPI_Recv(data, count, type.raw, from, tag, comm.raw, status);
}

static inline int cmpi_isend(
    const void *data, int count, cmpi_datatype type, int to, int tag, cmpi_comm comm, cmpi_request *request) {
  return MPI_Isend(data, count, type.raw, to, tag, comm.raw, &request->raw);
}

static inline int cmpi_irecv(
    void *data, int count, cmpi_datatype type, int from, int tag, cmpi_comm comm, cmpi_request *request) {
  return MPI_Irecv(data, count, type.raw, from, tag, comm.raw, &request->raw);
}

/// Takes the next message with this tag out of the queue, whoever sent it, without receiving it yet.
static inline int cmpi_improbe(int tag, cmpi_comm comm, int *found, cmpi_message *message, MPI_Status *status) {
  return MPI_Improbe(MPI_ANY_SOURCE, tag, comm.raw, found, &message->raw, status);
}

static inline int cmpi_imrecv(
    void *data, int count, cmpi_datatype type, cmpi_message *message, cmpi_request *request) {
  return MPI_Imrecv(data, count, type.raw, &message->raw, &request->raw);
}

static inline cmpi_request cmpi_request_null(void) { return (cmpi_request){MPI_REQUEST_NULL}; }
static inline int cmpi_request_is_null(cmpi_request request) { return request.raw == MPI_REQUEST_NULL; }
static inline int cmpi_request_free(cmpi_request *request) { return MPI_Request_free(&request->raw); }
static inline int cmpi_cancel(cmpi_request *request) { return MPI_Cancel(&request->raw); }
static inline int cmpi_wait(cmpi_request *request, MPI_Status *status) { return MPI_Wait(&request->raw, status); }

static inline int cmpi_test(cmpi_request *request, int *done, MPI_Status *status) {
  return MPI_Test(&request->raw, done, status);
}

static inline int cmpi_waitany(int count, cmpi_request *requests, int *index, MPI_Status *status) {
  return MPI_Waitany(count, (MPI_Request *)requests, index, status);
}

static inline int cmpi_testsome(int count, cmpi_request *requests, int *done, int *indices, MPI_Status *statuses) {
  return MPI_Testsome(count, (MPI_Request *)requests, done, indices, statuses);
}

static inline int cmpi_test_cancelled(const MPI_Status *status) {
  int flag = 0;
  MPI_Test_cancelled(status, &flag);
  return flag;
}

/// Bytes received; −1 if MPI cannot say. 64 bits wide, unlike MPI_Get_count.
static inline long long cmpi_byte_count(const MPI_Status *status) {
  MPI_Count count = 0;
  int code = MPI_Get_elements_x(status, MPI_BYTE, &count);
  return code == MPI_SUCCESS && count != MPI_UNDEFINED ? (long long)count : -1;
}
