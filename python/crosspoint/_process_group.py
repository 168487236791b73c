"""The communicator of MPI whose processes are those of a process group of torch.distributed."""

import sys
import weakref
from typing import Any, List

from ._errors import Code, CrosspointError

_fabrics: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()


def is_process_group(value: Any) -> bool:
    """Whether it is one; without PyTorch nothing is."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    return hasattr(distributed, "ProcessGroup") and isinstance(value, distributed.ProcessGroup)


def shared_fabric(group: Any) -> Any:
    """The fabric of all layers over a group, with PyTorch's default timeout. Collective over it, the first time."""
    from torch.distributed.constants import default_pg_timeout

    from ._fabric import Fabric

    fabric = _fabrics.get(group) or Fabric.of(group, deadline=default_pg_timeout.total_seconds())
    if fabric is not group:
        _fabrics[group] = fabric
    return fabric


def communicator_of(group: Any) -> Any:
    """A new communicator of mpi4py, in the group's order of ranks. Collective over the group, not over the job."""
    import torch.distributed
    from mpi4py import MPI

    ranks = [-1] * group.size()
    torch.distributed.all_gather_object(ranks, MPI.COMM_WORLD.rank, group=group)
    return communicator_of_ranks(ranks)


def communicator_of_ranks(ranks: List[int]) -> Any:
    """A new communicator of mpi4py of these processes of the job. Collective over them."""
    from mpi4py import MPI

    if len(set(ranks)) != len(ranks):
        raise CrosspointError(
            Code.INVALID_ARGUMENT,
            "Fabric.of",
            "comm",
            f"the {len(ranks)} processes of the group have the ranks {ranks} of MPI: launch them with mpirun",
        )
    part = MPI.COMM_WORLD.group.Incl(ranks)
    try:
        return MPI.COMM_WORLD.Create_group(part)
    finally:
        part.Free()
