// MPI for Swift, which cannot import function-like macros such as MPI_COMM_WORLD.
//
// Each handle is wrapped in a struct: MPI implementations disagree about what a handle is (Open MPI: pointer, MPICH: int),
// and the struct looks the same to Swift either way. Only what the MPI 3.1 standard names is used.

#ifndef CMPI_H
#define CMPI_H

#include <mpi.h>
#include <stddef.h>

typedef struct { MPI_Comm raw; } cmpi_comm;
typedef struct { MPI_Datatype raw; } cmpi_datatype;
typedef struct { MPI_Op raw; } cmpi_op;
typedef struct { MPI_Request raw; } cmpi_request;
typedef struct { MPI_Message raw; } cmpi_message;
typedef struct { MPI_Win raw; } cmpi_win;

_Static_assert(sizeof(cmpi_request) == sizeof(MPI_Request), "an array of cmpi_request is an array of MPI_Request");

#include "environment.h"
#include "constants.h"
#include "communicators.h"
#include "requests.h"
#include "collectives.h"
#include "windows.h"

#endif
