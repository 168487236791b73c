"""What the library reports, as exceptions."""

import enum
from typing import Optional

from ._library import Error, byref, library


class Code(enum.IntEnum):
    """The kind of failure. Numbers never change; docs/troubleshooting.md says what to do about each."""

    INVALID_ARGUMENT = 1
    NON_FINITE = 2
    RANKS_DISAGREE = 3
    CORRUPT_FRAME = 4
    TRUNCATED_FRAME = 5
    DEADLINE_EXCEEDED = 6
    RANK_LOST = 7
    HANDLE_MISUSE = 8
    OUT_OF_MEMORY = 9
    TRANSPORT = 10
    FILE = 11
    CHECKPOINT_MISMATCH = 12
    REFUSED_ELSEWHERE = 13
    INTERRUPTED = 14


class CrosspointError(Exception):
    """A failure of Crosspoint: ``str(error)`` is one line that says what to do next."""

    code: Code
    #: The rank on which it arose; ``None`` outside any.
    rank: Optional[int]
    #: The call in which it arose, for example ``dispatch``.
    operation: str
    #: The argument at fault, for example ``tokens``.
    argument: str
    #: What was found and what was expected.
    message: str
    #: Whether every rank raises this same error. If so the ranks are in step and may go on; else others may wait for this
    #: one.
    is_agreed: bool

    def __init__(
        self,
        code: Code,
        operation: str,
        argument: str,
        message: str,
        *,
        rank: Optional[int] = None,
        is_agreed: bool = False,
        text: Optional[str] = None,
    ):
        super().__init__(text or f"{operation}: {code.name.lower()}: {argument}: {message}")
        self.code = code
        self.rank = rank
        self.operation = operation
        self.argument = argument
        self.message = message
        self.is_agreed = is_agreed


class Refusal(Exception):
    """What is wrong with an argument of this rank."""

    def __init__(self, argument: str, message: str):
        super().__init__(argument, message)
        self.argument = argument
        self.message = message

    def alone(self, operation: str, rank: int) -> CrosspointError:
        """The error of this rank, of a call that others need not have made."""
        return CrosspointError(Code.INVALID_ARGUMENT, operation, self.argument, self.message, rank=rank)


def check(status: int) -> None:
    """Raises what the last call of this thread reported."""
    if status == 0:
        return
    error = Error.new()
    library.crosspoint_last_error(byref(error))
    raise CrosspointError(
        Code(error.status),
        error.operation.decode(),
        error.argument.decode(),
        error.message.decode(),
        rank=None if error.rank < 0 else error.rank,
        is_agreed=bool(error.is_agreed),
        text=error.text.decode(),
    )
