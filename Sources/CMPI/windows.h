// Memory shared by the ranks of one node.

static inline int cmpi_win_allocate_shared(long bytes, int unit, cmpi_comm comm, void **base, cmpi_win *window) {
  int code = MPI_Win_allocate_shared((MPI_Aint)bytes, unit, MPI_INFO_NULL, comm.raw, base, &window->raw);
  return code == MPI_SUCCESS ? MPI_Win_set_errhandler(window->raw, MPI_ERRORS_RETURN) : code;
}

static inline int cmpi_win_shared_query(cmpi_win window, int rank, long *bytes, void **base) {
  MPI_Aint size = 0;
  int unit = 0;
  int code = MPI_Win_shared_query(window.raw, rank, &size, &unit, base);
  *bytes = (long)size;
  return code;
}

static inline cmpi_win cmpi_win_null(void) { return (cmpi_win){MPI_WIN_NULL}; }
static inline int cmpi_win_is_null(cmpi_win window) { return window.raw == MPI_WIN_NULL; }
static inline int cmpi_win_fence(cmpi_win window) { return MPI_Win_fence(0, window.raw); }
static inline int cmpi_win_sync(cmpi_win window) { return MPI_Win_sync(window.raw); }
static inline int cmpi_win_lock_all(cmpi_win window) { return MPI_Win_lock_all(MPI_MODE_NOCHECK, window.raw); }
static inline int cmpi_win_unlock_all(cmpi_win window) { return MPI_Win_unlock_all(window.raw); }
static inline int cmpi_win_free(cmpi_win *window) { return MPI_Win_free(&window->raw); }
