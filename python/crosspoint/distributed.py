"""Crosspoint as a back end of torch.distributed: tensors on the CPU, processes of MPI.

    import crosspoint.distributed
    torch.distributed.init_process_group("crosspoint", init_method="mpi://")

All-to-all, all-reduce, all-gather, reduce-scatter, broadcast and barrier; anything else raises NotImplementedError. Sums are
added in the order of ranks: they have the same bits on every rank and in every run. docs/torch.md shows how.
"""

from datetime import timedelta
from typing import Any, Iterator, List, Sequence, Tuple

import torch
import torch.distributed as dist
from torch.distributed import ReduceOp
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import register_rendezvous_handler

from ._errors import Code, CrosspointError
from ._fabric import Fabric
from ._process_group import communicator_of_ranks

__all__ = ["ProcessGroup"]

# Addresses and bytes, one of each per rank.
Blocks = Tuple[List[int], List[int]]

# Up to so many bytes everybody adds everything: one exchange instead of two of parts.
_SMALL = 4096

_REDUCTIONS = {
    ReduceOp.SUM: torch.add,
    ReduceOp.AVG: torch.add,
    ReduceOp.PRODUCT: torch.mul,
    ReduceOp.MIN: torch.minimum,
    ReduceOp.MAX: torch.maximum,
    ReduceOp.BAND: torch.bitwise_and,
    ReduceOp.BOR: torch.bitwise_or,
    ReduceOp.BXOR: torch.bitwise_xor,
}


class ProcessGroup(dist.ProcessGroup):
    """The ranks of a fabric, for torch.distributed. Calls have ended when they return, also those of ``async_op``.

    Tensors are contiguous and on the CPU, and what a call sends and receives is of one type; else the rank alone raises a
    CrosspointError. So does a rank that is sent another number of bytes than it expects: it names the sender.
    """

    def __init__(self, fabric: Fabric):
        super().__init__(fabric.rank, fabric.rank_count)
        self.fabric = fabric

    def getBackendName(self) -> str:
        return "crosspoint"

    def setGroupName(self, name: str) -> None:
        self._name = name

    def getGroupName(self) -> str:
        return self._name

    def all_to_all_single(self, output, input, output_split_sizes, input_split_sizes, opts=None):
        call = "all_to_all_single"
        _require_same_type(call, output, input)
        send = self._split(call, "input", input, input_split_sizes)
        self.fabric.exchange_memory(*send, *self._split(call, "output", output, output_split_sizes))
        return _done(output)

    def alltoall(self, output_tensors, input_tensors, opts=None):
        self._exchange("all_to_all", input_tensors, output_tensors)
        return _done(output_tensors)

    def all_gather_single(self, output, input, opts=None):
        call = "all_gather_single"
        _require_same_type(call, output, input)
        self._gather(call, input, self._parts(call, "output", output))
        return _done(output)

    def allgather(self, output_tensors, input_tensors, opts=None):
        for outputs, tensor in zip(output_tensors, input_tensors):
            _require_same_type("all_gather", *outputs, tensor)
            self._gather("all_gather", tensor, self._each("all_gather", "tensor_list", outputs))
        return _done(output_tensors)

    def broadcast(self, tensors, opts):
        for tensor in tensors:
            address, size = _memory("broadcast", "tensor", tensor)
            is_root = self.rank() == opts.rootRank
            send = [0 if not is_root or peer == opts.rootRank else size for peer in range(self.size())]
            receive = [0 if is_root or peer != opts.rootRank else size for peer in range(self.size())]
            self.fabric.exchange_memory([address] * self.size(), send, [address] * self.size(), receive)
        return _done(tensors)

    def allreduce(self, tensors, opts):
        for tensor in tensors:
            self._allreduce(tensor, opts.reduceOp.op)
        return _done(tensors)

    def reduce_scatter_single(self, output, input, opts):
        call = "reduce_scatter_single"
        _require_same_type(call, output, input)
        self._reduce_scatter(call, self._parts(call, "input", input), output, opts.reduceOp.op)
        return _done(output)

    def reduce_scatter(self, outputs, input_tensors, opts):
        for output, inputs in zip(outputs, input_tensors):
            _require_same_type("reduce_scatter", output, *inputs)
            send = self._each("reduce_scatter", "input_list", inputs)
            self._reduce_scatter("reduce_scatter", send, output, opts.reduceOp.op)
        return _done(outputs)

    def barrier(self, opts=None):
        self.fabric.barrier()
        return _done([])

    def shutdown(self) -> None:
        """Nothing is left to end."""

    # As older versions of PyTorch call them.
    alltoall_base = all_to_all_single
    _allgather_base = all_gather_single
    _reduce_scatter_base = reduce_scatter_single

    def _exchange(self, call: str, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        _require_same_type(call, *outputs, *inputs)
        send = self._each(call, "input_tensor_list", inputs)
        self.fabric.exchange_memory(*send, *self._each(call, "output_tensor_list", outputs))

    def _gather(self, call: str, tensor: torch.Tensor, receive: Blocks) -> None:
        address, size = _memory(call, "input", tensor)
        self.fabric.exchange_memory([address] * self.size(), [size] * self.size(), *receive)

    def _allreduce(self, tensor: torch.Tensor, operation: Any) -> None:
        call, (_, size) = "all_reduce", _memory("all_reduce", "tensor", tensor)
        flat = tensor.view(-1)
        if size <= _SMALL:
            parts = flat.new_empty(self.size(), flat.numel())
            self._gather(call, flat, self._each(call, "tensor", parts.unbind()))
            flat.copy_(_reduced(call, parts, operation))
            return
        chunks = flat.tensor_split(self.size())
        mine = chunks[self.rank()]
        self._reduce_scatter(call, self._each(call, "tensor", chunks), mine, operation)
        address, size = _memory(call, "tensor", mine)
        to, bytes_of = self._each(call, "tensor", chunks)
        send = [0 if peer == self.rank() else size for peer in range(self.size())]
        bytes_of[self.rank()] = 0
        self.fabric.exchange_memory([address] * self.size(), send, to, bytes_of)

    def _reduce_scatter(self, call: str, send: Blocks, output: torch.Tensor, operation: Any) -> None:
        parts = output.new_empty(self.size(), output.numel())
        self.fabric.exchange_memory(*send, *self._each(call, "output", parts.unbind()))
        output.view(-1).copy_(_reduced(call, parts, operation))

    def _parts(self, call: str, argument: str, tensor: torch.Tensor) -> Blocks:
        """Equal parts of a tensor."""
        address, size = _memory(call, argument, tensor)
        if tensor.numel() % self.size():
            raise _refusal(call, argument, f"{tensor.numel()} elements for {self.size()} ranks")
        part = size // self.size()
        return [address + peer * part for peer in range(self.size())], [part] * self.size()

    def _split(self, call: str, argument: str, tensor: torch.Tensor, sizes: Sequence[int]) -> Blocks:
        """Parts of a tensor by rows: equal ones if no sizes are given."""
        address, size = _memory(call, argument, tensor)
        rows = tensor.shape[0] if tensor.dim() else 0
        if not sizes:
            if rows % self.size():
                raise _refusal(call, argument, f"{rows} rows for {self.size()} ranks")
            return self._parts(call, argument, tensor)
        if len(sizes) != self.size() or min(sizes) < 0 or sum(sizes) != rows:
            raise _refusal(call, argument, f"split sizes {list(sizes)}; {self.size()} are expected with the sum {rows}")
        row = size // rows if rows else 0
        addresses = []
        for count in sizes:
            addresses.append(address)
            address += count * row
        return addresses, [count * row for count in sizes]

    def _each(self, call: str, argument: str, tensors: Sequence[torch.Tensor]) -> Blocks:
        if len(tensors) != self.size():
            raise _refusal(call, argument, f"{len(tensors)} tensors for {self.size()} ranks")
        memory = [_memory(call, argument, tensor) for tensor in tensors]
        return [address for address, _ in memory], [size for _, size in memory]


def _refuse(call: str):
    def refuse(self, *_, **__):
        raise NotImplementedError(f"torch.distributed's {call} is not there in the back end crosspoint: use Gloo's for it")

    return refuse


for _call in (
    "gather scatter reduce send recv recv_anysource allgather_coalesced allreduce_coalesced monitored_barrier "
    "all_gather_single_coalesced reduce_scatter_single_coalesced allgather_into_tensor_coalesced "
    "reduce_scatter_tensor_coalesced"
).split():
    setattr(ProcessGroup, _call, _refuse(_call))


def _memory(call: str, argument: str, tensor: torch.Tensor) -> Tuple[int, int]:
    """Address and bytes."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        found = f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}, strides {tensor.stride()}"
        raise _refusal(call, argument, f"{found}; a contiguous tensor on the CPU is expected")
    return tensor.data_ptr(), tensor.numel() * tensor.element_size()


def _require_same_type(call: str, first: torch.Tensor, *others: torch.Tensor) -> None:
    for other in others:
        if other.dtype != first.dtype:
            raise _refusal(call, "input", f"{other.dtype}; {first.dtype} is expected, as of the output")


def _reduced(call: str, parts: torch.Tensor, operation: Any) -> torch.Tensor:
    """One row of what all ranks have, in their order; halves are added as float32."""
    if operation not in _REDUCTIONS:
        raise NotImplementedError(f"torch.distributed's {call} with {operation} is not there in the back end crosspoint")
    total, *others = (parts.float() if parts.dtype in (torch.bfloat16, torch.float16) else parts).unbind()
    for part in others:
        total = _REDUCTIONS[operation](total, part)
    return total / len(parts) if operation == ReduceOp.AVG else total


def _refusal(call: str, argument: str, message: str) -> CrosspointError:
    return CrosspointError(Code.INVALID_ARGUMENT, call, argument, message)


def _done(result: Any) -> Any:
    future = torch.futures.Future()
    future.set_result(result)
    return torch._C._distributed_c10d._create_work_from_future(future)


def _make(store: dist.Store, rank: int, size: int, timeout: timedelta) -> ProcessGroup:
    """A group of processes that mpirun has started."""
    from mpi4py import MPI

    store.set(f"mpi{rank}", str(MPI.COMM_WORLD.rank))
    communicator = communicator_of_ranks([int(store.get(f"mpi{peer}")) for peer in range(size)])
    try:
        return ProcessGroup(Fabric.of(communicator, deadline=timeout.total_seconds()))
    finally:
        communicator.Free()


def _rendezvous(url: str, timeout: timedelta = default_pg_timeout, **_: Any) -> Iterator[Tuple]:
    """All processes of MPI, by their ranks there; the store is on rank 0."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    host, port = MPI.Get_processor_name(), 0
    if world.rank == 0:
        store = dist.TCPStore(host, port, world.size, True, timeout, wait_for_workers=False)
        port = store.port
    host, port = world.bcast((host, port))
    if world.rank != 0:
        store = dist.TCPStore(host, port, world.size, False, timeout)
    yield store, world.rank, world.size


dist.Backend.register_backend("crosspoint", _make, devices=["cpu"])
register_rendezvous_handler("mpi", _rendezvous)
