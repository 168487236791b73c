"""How ranks refuse a call together whose arguments Python checks before any exchange is known."""

from typing import Dict, Optional, Sequence

import numpy as np

from ._errors import Code, CrosspointError, Refusal
from ._fabric import Fabric
from ._library import library

_TEXT_BYTES = 512


def agree(
    fabric: Fabric,
    operation: str,
    facts: Dict[str, int],
    refusal: Optional[Refusal],
    words: Dict[str, Sequence[str]],
) -> None:
    """Raises the same error on every rank if one refuses, or if a fact is not the same on all. Collective.

    :param facts: as many on every rank, each below 2^24; of a rank that refuses they are ignored.
    :param refusal: why this rank cannot take part.
    :param words: what the values of a fact are called, where they are no numbers.
    """
    table = np.zeros((fabric.rank_count, 1 + len(facts)), np.float32)
    table[fabric.rank] = [1] + [0] * len(facts) if refusal else [0, *facts.values()]
    fabric.allreduce(table)
    refusing = np.flatnonzero(table[:, 0])
    if refusing.size:
        _raise(operation, Code.INVALID_ARGUMENT, refusing[0], *_texts(fabric, refusing[0], refusal))
    for column, name in enumerate(facts, 1):
        odd = np.flatnonzero(table[:, column] != table[0, column])
        if odd.size:
            theirs, ours = (int(table[rank, column]) for rank in (odd[0], 0))
            if name in words:
                theirs, ours = words[name][theirs], words[name][ours]
            message = f"{theirs} on rank {odd[0]}, {ours} on rank 0"
            _raise(operation, Code.RANKS_DISAGREE, odd[0], name, message)


def _texts(fabric, rank, refusal):
    """Argument and message of the rank that refuses, told as one byte per float."""
    told = np.zeros(_TEXT_BYTES, np.float32)
    if fabric.rank == rank:
        text = f"{refusal.argument}\0{refusal.message}".encode()[:_TEXT_BYTES]
        told[: len(text)] = np.frombuffer(text, np.uint8)
    fabric.allreduce(told)
    return told.astype(np.uint8).tobytes().rstrip(b"\0").decode(errors="replace").split("\0", 1)


def _raise(operation, code, rank, argument, message):
    name = library.crosspoint_status_name(int(code)).decode()
    text = f"rank {rank}: {operation}: {name}: {argument}: {message}"
    raise CrosspointError(code, operation, argument, message, rank=int(rank), is_agreed=True, text=text)
