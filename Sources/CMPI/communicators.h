// Communicators. Those made here return errors instead of ending the program.

static inline cmpi_comm cmpi_comm_world(void) { return (cmpi_comm){MPI_COMM_WORLD}; }
/// MPI_COMM_NULL where the library knows no such handle, for which Open MPI gives a null pointer. The standard ABI has its own
/// integers in place of Fortran's.
static inline cmpi_comm cmpi_comm_from_fortran(int handle) {
#ifdef MPI_ABI_VERSION
  MPI_Comm comm = MPI_Comm_fromint(handle);
#else
  MPI_Comm comm = MPI_Comm_f2c((MPI_Fint)handle);
#endif
  return (cmpi_comm){comm == (MPI_Comm)0 ? MPI_COMM_NULL : comm};
}
static inline int cmpi_comm_is_null(cmpi_comm comm) { return comm.raw == MPI_COMM_NULL; }
static inline int cmpi_comm_rank(cmpi_comm comm, int *rank) { return MPI_Comm_rank(comm.raw, rank); }
static inline int cmpi_comm_size(cmpi_comm comm, int *size) { return MPI_Comm_size(comm.raw, size); }

static inline int cmpi_comm_return_errors(int code, cmpi_comm comm) {
  if (code != MPI_SUCCESS || comm.raw == MPI_COMM_NULL) return code;
  return MPI_Comm_set_errhandler(comm.raw, MPI_ERRORS_RETURN);
}

static inline int cmpi_comm_dup(cmpi_comm comm, cmpi_comm *copy) {
  copy->raw = MPI_COMM_NULL;
  return cmpi_comm_return_errors(MPI_Comm_dup(comm.raw, &copy->raw), *copy);
}

static inline int cmpi_comm_split(cmpi_comm comm, int color, int key, cmpi_comm *part) {
  part->raw = MPI_COMM_NULL;
  return cmpi_comm_return_errors(MPI_Comm_split(comm.raw, color, key, &part->raw), *part);
}

static inline int cmpi_comm_split_shared(cmpi_comm comm, int key, cmpi_comm *node) {
  node->raw = MPI_COMM_NULL;
  return cmpi_comm_return_errors(
      MPI_Comm_split_type(comm.raw, MPI_COMM_TYPE_SHARED, key, MPI_INFO_NULL, &node->raw), *node);
}

static inline int cmpi_comm_free(cmpi_comm *comm) { return MPI_Comm_free(&comm->raw); }
static inline int cmpi_abort(cmpi_comm comm, int code) { return MPI_Abort(comm.raw, code); }
