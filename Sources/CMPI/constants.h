// Datatypes, reductions, error classes and wildcards.

#define CMPI_CONSTANT(type, name, value) \
  static inline type name(void) { return (type){value}; }

CMPI_CONSTANT(cmpi_datatype, cmpi_byte, MPI_BYTE)
CMPI_CONSTANT(cmpi_datatype, cmpi_int8, MPI_INT8_T)
CMPI_CONSTANT(cmpi_datatype, cmpi_int16, MPI_INT16_T)
CMPI_CONSTANT(cmpi_datatype, cmpi_int32, MPI_INT32_T)
CMPI_CONSTANT(cmpi_datatype, cmpi_int64, MPI_INT64_T)
CMPI_CONSTANT(cmpi_datatype, cmpi_uint8, MPI_UINT8_T)
CMPI_CONSTANT(cmpi_datatype, cmpi_uint16, MPI_UINT16_T)
CMPI_CONSTANT(cmpi_datatype, cmpi_uint32, MPI_UINT32_T)
CMPI_CONSTANT(cmpi_datatype, cmpi_uint64, MPI_UINT64_T)
CMPI_CONSTANT(cmpi_datatype, cmpi_float, MPI_FLOAT)
CMPI_CONSTANT(cmpi_datatype, cmpi_double, MPI_DOUBLE)

CMPI_CONSTANT(cmpi_op, cmpi_sum, MPI_SUM)
CMPI_CONSTANT(cmpi_op, cmpi_product, MPI_PROD)
CMPI_CONSTANT(cmpi_op, cmpi_minimum, MPI_MIN)
CMPI_CONSTANT(cmpi_op, cmpi_maximum, MPI_MAX)
CMPI_CONSTANT(cmpi_op, cmpi_bitwise_and, MPI_BAND)
CMPI_CONSTANT(cmpi_op, cmpi_bitwise_or, MPI_BOR)

static inline int cmpi_success(void) { return MPI_SUCCESS; }
static inline int cmpi_err_buffer(void) { return MPI_ERR_BUFFER; }
static inline int cmpi_err_count(void) { return MPI_ERR_COUNT; }
static inline int cmpi_err_type(void) { return MPI_ERR_TYPE; }
static inline int cmpi_err_tag(void) { return MPI_ERR_TAG; }
static inline int cmpi_err_comm(void) { return MPI_ERR_COMM; }
static inline int cmpi_err_rank(void) { return MPI_ERR_RANK; }
static inline int cmpi_err_root(void) { return MPI_ERR_ROOT; }
static inline int cmpi_err_op(void) { return MPI_ERR_OP; }
static inline int cmpi_err_arg(void) { return MPI_ERR_ARG; }
static inline int cmpi_err_truncate(void) { return MPI_ERR_TRUNCATE; }
static inline int cmpi_err_no_mem(void) { return MPI_ERR_NO_MEM; }
static inline int cmpi_err_other(void) { return MPI_ERR_OTHER; }
static inline int cmpi_err_in_status(void) { return MPI_ERR_IN_STATUS; }

static inline int cmpi_undefined(void) { return MPI_UNDEFINED; }
static inline int cmpi_any_source(void) { return MPI_ANY_SOURCE; }
static inline int cmpi_any_tag(void) { return MPI_ANY_TAG; }
