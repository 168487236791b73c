// Init, finalise, errors, names and the clock.

static inline int cmpi_init_thread(int required, int *provided) {
  int code = MPI_Init_thread(NULL, NULL, required, provided);
  if (code != MPI_SUCCESS) return code;
  // MPICH reports errors of requests to these two, whatever communicator the request is of.
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  return MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
}

static inline int cmpi_initialized(void) {
  int flag = 0;
  MPI_Initialized(&flag);
  return flag;
}

static inline int cmpi_finalized(void) {
  int flag = 0;
  MPI_Finalized(&flag);
  return flag;
}

static inline int cmpi_finalize(void) { return MPI_Finalize(); }
static inline int cmpi_query_thread(int *provided) { return MPI_Query_thread(provided); }

static inline int cmpi_thread_single(void) { return MPI_THREAD_SINGLE; }
static inline int cmpi_thread_funneled(void) { return MPI_THREAD_FUNNELED; }
static inline int cmpi_thread_serialized(void) { return MPI_THREAD_SERIALIZED; }
static inline int cmpi_thread_multiple(void) { return MPI_THREAD_MULTIPLE; }

static inline int cmpi_error_class(int code) {
  int value = code;
  MPI_Error_class(code, &value);
  return value;
}

static inline int cmpi_max_error_string(void) { return MPI_MAX_ERROR_STRING; }
static inline int cmpi_max_processor_name(void) { return MPI_MAX_PROCESSOR_NAME; }
static inline int cmpi_max_library_version(void) { return MPI_MAX_LIBRARY_VERSION_STRING; }
static inline int cmpi_error_string(int code, char *text, int *length) { return MPI_Error_string(code, text, length); }
static inline int cmpi_processor_name(char *text, int *length) { return MPI_Get_processor_name(text, length); }
static inline int cmpi_library_version(char *text, int *length) { return MPI_Get_library_version(text, length); }
#define CMPI_LITERAL(value) #value
#define CMPI_TEXT(value) CMPI_LITERAL(value)

/// The MPI whose binary interface this was compiled for, and its version.
static inline const char *cmpi_interface(void) {
#if defined(MPI_ABI_VERSION)
  return "MPI ABI " CMPI_TEXT(MPI_ABI_VERSION) "." CMPI_TEXT(MPI_ABI_SUBVERSION);
#elif defined(OPEN_MPI)
  return "Open MPI " CMPI_TEXT(OMPI_MAJOR_VERSION) "." CMPI_TEXT(OMPI_MINOR_VERSION) "." CMPI_TEXT(OMPI_RELEASE_VERSION);
#elif defined(MPICH_VERSION)
  return "MPICH " MPICH_VERSION;
#else
  return "unknown";
#endif
}

static inline int cmpi_standard_version(int *major, int *minor) { return MPI_Get_version(major, minor); }

static inline double cmpi_wtime(void) { return MPI_Wtime(); }
static inline double cmpi_wtick(void) { return MPI_Wtick(); }
