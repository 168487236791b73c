"""Ranks: processes of MPI, or threads of this process."""

import ctypes
import sys
import threading
import traceback
from typing import Any, Callable, List, Optional, Sequence, Tuple, TypeVar

import numpy as np

from ._errors import Code, CrosspointError, check
from ._library import Check, FabricOptions, Owned, byref, library
from ._process_group import communicator_of, is_process_group

Result = TypeVar("Result")


class Fabric:
    """One rank's view of all ranks. It belongs to one thread.

    Get one from :func:`world`, :meth:`of` or :func:`simulate`. As a context manager it ends well: after the block it waits
    for the other ranks. An exception that leaves the block on one rank alone ends an MPI job at once, since the others
    would wait for that rank; its traceback is written once.
    """

    def __init__(self, owned: Owned, is_mpi: bool):
        self._owned = owned
        self._is_mpi = is_mpi
        rank, count = ctypes.c_int32(), ctypes.c_int32()
        check(library.crosspoint_fabric_rank(self._pointer, byref(rank), byref(count)))
        #: This rank, from 0.
        self.rank: int = rank.value
        #: The number of ranks.
        self.rank_count: int = count.value
        self._caught: List[BaseException] = []
        if is_mpi:
            self._watch = Check(_signals(self._caught).send)
            check(library.crosspoint_fabric_on_wait(self._pointer, self._watch, None))

    @classmethod
    def of(cls, comm: Any, *, deadline: float = 60, messages_only: bool = False) -> "Fabric":
        """The ranks of a communicator of mpi4py, of a Fortran handle, or of a process group of torch.distributed whose
        processes mpirun started. Collective over it; it is duplicated. A fabric is taken as it is.

        :param deadline: seconds that a rank waits for another before it gives up and names it.
        :param messages_only: whether also ranks that could share memory send messages.
        """
        if isinstance(comm, Fabric):
            return comm
        if is_process_group(comm):
            made = communicator_of(comm)
            try:
                return cls.of(made, deadline=deadline, messages_only=messages_only)
            finally:
                made.Free()
        if not isinstance(comm, int):
            _require_same_mpi(comm)
            comm = comm.py2f()
        pointer = ctypes.c_void_p()
        options = FabricOptions.new(deadline=deadline, messages_only=messages_only)
        check(library.crosspoint_fabric_from_communicator(comm, byref(options), byref(pointer)))
        return cls(Owned(pointer.value, library.crosspoint_fabric_free), is_mpi=True)

    #: What this thread waits for before it uses a fabric: transfers that run in threads of others.
    _in_flight: List[Callable[[], None]] = []

    @property
    def _pointer(self) -> int:
        for wait in self._in_flight:
            wait()
        return self._owned.pointer

    @property
    def is_mpi(self) -> bool:
        """Whether the ranks are processes of MPI."""
        return self._is_mpi

    def set_deadline(self, seconds: float) -> None:
        """How long a rank waits for another."""
        check(library.crosspoint_fabric_set_deadline(self._pointer, seconds))

    def barrier(self) -> None:
        """Returns when every rank has called it. Collective."""
        self._check(library.crosspoint_fabric_barrier(self._pointer))

    def allreduce(self, values: np.ndarray) -> None:
        """Sums a contiguous float32 array over all ranks, in place, in the order of ranks. Collective."""
        if values.dtype != np.float32 or not values.flags.c_contiguous:
            raise CrosspointError(
                Code.INVALID_ARGUMENT, "allreduce", "values", f"{_describe(values)}; contiguous float32 is expected"
            )
        self._check(library.crosspoint_fabric_allreduce(self._pointer, values.ctypes.data, values.size))

    def exchange(
        self, send: Sequence[np.ndarray], receive: Optional[Sequence[np.ndarray]] = None
    ) -> Sequence[np.ndarray]:
        """Sends an array to every rank and receives one from every rank, itself among them. Collective.

        :param send: by rank; contiguous, of any type and size.
        :param receive: by rank, arrays of as many bytes as that rank sends here, to be written. ``None``: ranks tell each
            other how many, and get arrays of one dimension of the type of what they send.
        :returns: what was received, by rank.
        """
        sent = self._blocks("send", send)
        if receive is None:
            told = np.empty(self.rank_count, np.int64)
            eight = [8] * self.rank_count
            mine = np.array(sent[1], np.int64)
            self.exchange_memory(_addresses(mine), eight, _addresses(told), eight)
            of = send[self.rank].dtype
            receive = [np.empty(size // of.itemsize, of) for size in told.tolist()]
        self.exchange_memory(*sent, *self._blocks("receive", receive))
        return receive

    def exchange_memory(
        self, send: Sequence[int], send_bytes: Sequence[int], receive: Sequence[int], receive_bytes: Sequence[int]
    ) -> None:
        """The same by addresses and numbers of bytes, one of each per rank. Collective."""
        addresses, sizes = ctypes.c_void_p * self.rank_count, ctypes.c_int64 * self.rank_count
        self._check(
            library.crosspoint_fabric_exchange(
                self._pointer, addresses(*send), sizes(*send_bytes), addresses(*receive), sizes(*receive_bytes)
            )
        )

    def _blocks(self, argument: str, arrays: Sequence[np.ndarray]) -> Tuple[List[int], List[int]]:
        if len(arrays) != self.rank_count:
            message = f"{len(arrays)} arrays for {self.rank_count} ranks"
            raise CrosspointError(Code.INVALID_ARGUMENT, "exchange", argument, message, rank=self.rank)
        for rank, array in enumerate(arrays):
            flags = getattr(array, "flags", None)
            if flags is None or not flags.c_contiguous or not (flags.writeable or argument == "send"):
                message = f"{_describe(array)} for rank {rank}; a contiguous array is expected, writeable to receive"
                raise CrosspointError(Code.INVALID_ARGUMENT, "exchange", argument, message, rank=self.rank)
        return [array.ctypes.data for array in arrays], [array.nbytes for array in arrays]

    def finalize(self) -> None:
        """Waits for every rank, then ends MPI if :func:`world` started it. Collective."""
        self._check(library.crosspoint_fabric_finalize(self._pointer))

    def abort(self, exit_code: int = 1, report: str = "") -> None:
        """Ends every process of an MPI job at once. Of ranks that call it about one failure one writes the report."""
        sys.stdout.flush()
        check(library.crosspoint_fabric_abort(self._owned.pointer, exit_code, report.encode() or None))

    def __enter__(self) -> "Fabric":
        return self

    def __exit__(self, kind, error, trace) -> None:
        exit_code = error.code if isinstance(error, SystemExit) else 1
        if error is None or exit_code in (None, 0):
            self.finalize()
        elif self._is_mpi and self.rank_count > 1 and not (isinstance(error, CrosspointError) and error.is_agreed):
            code = exit_code if isinstance(exit_code, int) else 1
            self.abort(code, "".join(traceback.format_exception(kind, error, trace)).rstrip())

    def _check(self, status: int) -> None:
        """Raises what a call reported, or what a signal raised while it waited."""
        if status:
            if self._caught:
                raise self._caught.pop()
            check(status)


def world(*, deadline: float = 60, messages_only: bool = False) -> Fabric:
    """All processes that mpirun started; starts MPI unless mpi4py has. Collective. See :meth:`Fabric.of`."""
    pointer = ctypes.c_void_p()
    options = FabricOptions.new(deadline=deadline, messages_only=messages_only)
    check(library.crosspoint_fabric_world(byref(options), byref(pointer)))
    return Fabric(Owned(pointer.value, library.crosspoint_fabric_free), is_mpi=True)


def simulate(
    ranks: int, body: Callable[[Fabric], Result], *, ranks_per_node: Optional[int] = None, deadline: float = 60
) -> List[Result]:
    """Runs ``body(fabric)`` once per rank, each in a thread of its own, and returns what they return, by rank.

    :param ranks_per_node: so many ranks in a row form a node and share memory; ``None``: all of them.

    The exception of the rank that failed first is raised. Ctrl-C ends all ranks that wait for others.
    """
    options = FabricOptions.new(deadline=deadline)
    pointer = ctypes.c_void_p()
    check(library.crosspoint_cluster_create(ranks, ranks_per_node or ranks, byref(options), byref(pointer)))
    cluster = Owned(pointer.value, library.crosspoint_cluster_free)
    results: List[Any] = [None] * ranks
    failures: List[BaseException] = []

    def run(rank: int) -> None:
        pointer = ctypes.c_void_p()
        check(library.crosspoint_cluster_fabric(cluster.pointer, rank, byref(pointer)))
        fabric = Fabric(Owned(pointer.value, library.crosspoint_fabric_free), is_mpi=False)
        reason = None
        try:
            results[rank] = body(fabric)
        except BaseException as error:  # of any kind: it is raised below
            failures.append(error)
            reason = f"{type(error).__name__}: {error}".encode()
        library.crosspoint_fabric_leave(fabric._owned.pointer if reason else fabric._pointer, reason)

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}", daemon=True) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        library.crosspoint_cluster_cancel(cluster.pointer)
        for thread in threads:
            thread.join()
        raise
    if failures:
        raise failures[0]
    return results


def _signals(caught: List[BaseException]):
    """A generator whose ``send`` is called while a rank waits: it lets handlers of signals run, keeps what they raise, and
    says whether to stop. A function would not do: handlers run before the first line of it."""
    stop = 0
    while True:
        try:
            yield stop
            stop = 0
        except GeneratorExit:
            return
        except BaseException as error:  # Ctrl-C, or whatever a handler raises
            caught.append(error)
            stop = 1


def _require_same_mpi(comm: Any) -> None:
    if not hasattr(comm, "py2f"):
        raise CrosspointError(
            Code.INVALID_ARGUMENT,
            "Fabric.of",
            "comm",
            f"{type(comm).__name__}; a communicator of mpi4py, the integer of MPI_Comm_c2f or a process group is expected",
        )
    from mpi4py import MPI

    theirs = " ".join(MPI.Get_library_version().replace("\0", "").split())
    ours = " ".join(library.crosspoint_mpi_library().decode().split())
    if theirs != ours:
        raise CrosspointError(
            Code.INVALID_ARGUMENT, "Fabric.of", "comm", f"mpi4py runs on '{theirs}', Crosspoint on '{ours}': one is needed"
        )


def _addresses(array: np.ndarray) -> List[int]:
    """Of its elements."""
    return [array.ctypes.data + i * array.itemsize for i in range(array.size)]


def _describe(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__
