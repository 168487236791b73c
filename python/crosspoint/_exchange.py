"""One layer's exchange and what a dispatch leaves behind, over numpy arrays."""

import ctypes
import dataclasses
from typing import Any, Callable, Optional, Tuple

import numpy as np

from ._errors import Refusal, check
from ._fabric import Fabric, _describe
from ._library import Owned, Routing, Rows, byref, library
from ._library import Statistics as StatisticsOfC

_BFLOAT16 = 1
_DISPATCH, _COMBINE, _COMBINE_BACKWARD, _DISPATCH_BACKWARD = range(4)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of one kind of transfer, of this rank."""

    #: That left this rank, everything counted.
    wire_bytes: int
    #: Of these, to ranks that share its memory: no message.
    node_bytes: int
    #: That rows of every routed token, as they lie in memory, would have taken.
    uncompressed_bytes: int
    #: Of rows that stayed here.
    local_bytes: int


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What this rank moved since the last reset; all counters add up over ranks."""

    dispatches: int
    #: Routed (token, choice) pairs.
    rows_routed: int
    #: Rows that stood for them.
    rows_sent: int
    dispatch: Traffic
    combine: Traffic
    combine_backward: Traffic
    dispatch_backward: Traffic
    #: Sum over routed tokens of the squared distance to the row that stood for each; 0 without clusters.
    residual_squared: float
    token_squared: float
    #: By phase: hash, cluster, encode, skew, wait, decode, policy.
    seconds: dict
    #: The rank that was last most often to reach a transfer.
    slowest_rank: int
    #: The most bytes that buffers held at any moment.
    peak_buffer_bytes: int


class Exchange:
    """Sends each token to the ranks that hold its experts, and back: one per layer.

    Rank r of R holds a contiguous block of experts; the first ``experts % R`` ranks hold one more. Making one is collective,
    and so are :meth:`dispatch`, :meth:`combine`, :meth:`combine_backward` and :meth:`dispatch_backward`: every rank calls
    them, in the same order, also with zero tokens. Bad arguments on one rank raise the same :class:`CrosspointError` on all.
    Each has a ``begin_`` form that waits for nobody: see :class:`Pending`.

    Arrays are float32 of shape ``(rows, hidden)``; with the option ``rows=bf16`` the bits of bfloat16 as uint16, or arrays of
    the dtype that ``ml_dtypes`` calls bfloat16; weights and their gradients are float32 either way. Rows may have gaps between them (``x[:, :hidden]``): the library copies
    such arrays once. Arrays whose rows are not contiguous (``x.T``) are refused, and so is any other dtype.

    :param experts: over all ranks.
    :param hidden: numbers per token.
    :param options: by the names of the command line, for example ``"wire=bf16,copies=rank"``; ``""`` loses nothing.
    :param layer: which layer of the model it serves, from 0: the rounding of gradients draws other numbers for each.
    """

    def __init__(self, fabric: Fabric, *, experts: int, hidden: int, options: str = "", layer: int = 0):
        pointer = ctypes.c_void_p()
        fabric._check(
            library.crosspoint_exchange_create(
                fabric._pointer, experts, hidden, layer, options.encode(), byref(pointer)
            )
        )
        self._owned = Owned(pointer.value, library.crosspoint_exchange_free)
        self._pointer = pointer.value
        self.fabric = fabric
        self.experts = experts
        self.hidden = hidden
        #: All options in full.
        self.options: str = library.crosspoint_exchange_options(self._pointer).decode()
        first, count = ctypes.c_int64(), ctypes.c_int64()
        check(library.crosspoint_exchange_local_experts(self._pointer, byref(first), byref(count)))
        #: Of all arrays of rows: float32, or uint16 with the option ``rows=bf16``.
        self.dtype = np.dtype(np.uint16 if "rows=bf16" in self.options.split() else np.float32)
        self._is_narrow = self.dtype == np.uint16
        #: This rank's experts.
        self.local_experts = range(first.value, first.value + count.value)
        # What describes arrays to the library, which reads it before a call returns.
        self._given, self._wanted, self._routing = Rows.new(), Rows.new(), Routing.new()

    def dispatch(
        self, tokens: np.ndarray, experts: np.ndarray, weights: np.ndarray, labels: Optional[np.ndarray] = None
    ) -> "Handle":
        """Sends every routed token to the ranks of its experts. Collective.

        :param tokens: ``(T, hidden)``; T may differ between ranks.
        :param experts: ``(T, K)`` integers; -1 is not sent.
        :param weights: ``(T, K)`` float32: what the outputs are multiplied by in :meth:`combine`.
        :param labels: ``(T,)`` integers, -1 (none) to 2**24, the same for tokens that resemble each other, for example
            their number in the vocabulary: the option ``memory=N`` makes use of them. ``None``: no token has one.
        """
        return self._dispatch(tokens, experts, weights, labels, False)

    def begin_dispatch(
        self, tokens: np.ndarray, experts: np.ndarray, weights: np.ndarray, labels: Optional[np.ndarray] = None
    ) -> "Pending":
        """Begins :meth:`dispatch`. Collective, but waits for nobody."""
        return self._dispatch(tokens, experts, weights, labels, True)

    def _dispatch(self, tokens, experts, weights, labels, begins):
        try:
            self._fill(self._given, tokens, "tokens")
            experts, weights = _routing(experts, weights)
            if labels is not None:
                labels = _labels(labels, len(experts))
        except Refusal as refusal:
            return self._refuse(_DISPATCH, None, refusal, begins)
        routing = self._routing
        routing.experts = _address(experts)
        routing.weights = _address(weights)
        routing.tokens, routing.top_k = shape = experts.shape
        routing.labels = None if labels is None else _address(labels)
        pointer = ctypes.c_void_p()

        def result():
            return Handle(self, Owned(pointer.value, library.crosspoint_handle_free), shape)

        arguments = (self._pointer, byref(self._given), byref(routing), byref(pointer))
        return self._run(library.crosspoint_dispatch_begin, arguments, result, begins, tokens)

    def combine(
        self, handle: "Handle", outputs: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None
    ) -> np.ndarray:
        """Brings the experts' outputs home: ``y[t] = sum over k of weights[t, k] * output``. Collective.

        :param outputs: ``(rows, hidden)``, in the order of ``handle.rows``; ``None``: what was written to
            ``handle.outputs()``, which other ranks of the node read where it lies.
        :param out: where the result belongs, ``(T, hidden)``; ``None``: a new array.
        :returns: the result; zeros for tokens that were sent nowhere.
        """
        return self._home(_COMBINE, library.crosspoint_combine_begin, handle, outputs, "outputs", out, False)

    def begin_combine(
        self, handle: "Handle", outputs: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None
    ) -> "Pending":
        """Begins :meth:`combine`. Collective, but waits for nobody."""
        return self._home(_COMBINE, library.crosspoint_combine_begin, handle, outputs, "outputs", out, True)

    def combine_backward(self, handle: "Handle", gradient: np.ndarray) -> np.ndarray:
        """Sends the gradient of the result to the experts. Collective.

        :param gradient: of the loss by the result of :meth:`combine`, ``(T, hidden)``.
        :returns: of the loss by the outputs, ``(rows, hidden)``, in memory of the handle.
        """
        return self._combine_backward(handle, gradient, False)

    def begin_combine_backward(self, handle: "Handle", gradient: np.ndarray) -> "Pending":
        """Begins :meth:`combine_backward`. Collective, but waits for nobody."""
        return self._combine_backward(handle, gradient, True)

    def _combine_backward(self, handle, gradient, begins):
        received = Rows.new()
        try:
            self._fill(self._given, gradient, "gradient")
        except Refusal as refusal:
            return self._refuse(_COMBINE_BACKWARD, handle, refusal, begins)
        arguments = (self._pointer, handle._pointer, byref(self._given), byref(received))

        def result():
            return handle._view(received)

        return self._run(library.crosspoint_combine_backward_begin, arguments, result, begins, gradient)

    def dispatch_backward(
        self, handle: "Handle", row_gradients: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None
    ) -> np.ndarray:
        """Brings the gradients of rows home and sums them per token. Collective.

        :param row_gradients: ``(rows, hidden)``; ``None``: what was written to ``handle.row_gradients()``.
        :param out: where the result belongs, ``(T, hidden)``; ``None``: a new array.
        :returns: the gradient of the loss by the tokens.
        """
        begin = library.crosspoint_dispatch_backward_begin
        return self._home(_DISPATCH_BACKWARD, begin, handle, row_gradients, "row_gradients", out, False)

    def begin_dispatch_backward(
        self, handle: "Handle", row_gradients: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None
    ) -> "Pending":
        """Begins :meth:`dispatch_backward`. Collective, but waits for nobody."""
        begin = library.crosspoint_dispatch_backward_begin
        return self._home(_DISPATCH_BACKWARD, begin, handle, row_gradients, "row_gradients", out, True)

    def _home(self, transfer, begin, handle, values, argument, out, begins):
        if out is None:
            out = np.empty((handle.tokens, self.hidden), self.dtype)
        try:
            if values is not None:
                self._fill(self._given, values, argument)
            self._fill(self._wanted, out, "out", written=True)
        except Refusal as refusal:
            return self._refuse(transfer, handle, refusal, begins)
        given = None if values is None else byref(self._given)
        arguments = (self._pointer, handle._pointer, given, byref(self._wanted))
        return self._run(begin, arguments, lambda: out, begins, values, handle)

    def _fill(self, rows: Rows, array: np.ndarray, argument: str, written: bool = False) -> None:
        """Describes an array to the library, which checks the shape."""
        is_narrow = self._is_narrow
        is_array = isinstance(array, np.ndarray) and array.ndim == 2
        if not is_array or (array.dtype != self.dtype and not (is_narrow and array.dtype.name == "bfloat16")):
            wanted = "bfloat16, or its bits as uint16," if is_narrow else "float32"
            raise Refusal(argument, f"{_describe(array)}; a numpy array of {wanted} with two dimensions is expected")
        flags = array.flags
        if written and not flags.writeable:
            raise Refusal(argument, "a read-only array")
        rows.data = _address(array)
        rows.rows, rows.columns = count, columns = array.shape
        rows.type = _BFLOAT16 if is_narrow else 0
        rows.stride = 0
        if not flags.c_contiguous and count > 0:
            size = self.dtype.itemsize
            stride, step = array.strides
            if (step != size and columns > 1) or (count > 1 and (stride % size or stride < size * columns)):
                raise Refusal(
                    argument,
                    f"strides of {stride} and {step} bytes; rows must be contiguous: "
                    f"pass np.ascontiguousarray({argument})",
                )
            rows.stride = stride // size if count > 1 else 0

    def _refuse(self, transfer: int, handle: Optional["Handle"], refusal: "Refusal", begins: bool):
        """The other ranks have begun a transfer: all of them get to know what this one cannot do."""
        pointer = None if handle is None else handle._pointer
        arguments = (self._pointer, pointer, transfer, refusal.argument.encode(), refusal.message.encode())

        def result():
            raise AssertionError("a refusal is an error")

        return self._run(library.crosspoint_exchange_refuse_begin, arguments, result, begins, handle)

    def _run(self, begin, arguments, result, begins, *kept):
        """Makes a transfer, or only begins it.

        :param kept: what must live until it is finished.
        """
        if not begins:
            self.fabric._check(begin(*arguments, None))
            return result()
        pointer = ctypes.c_void_p()
        self.fabric._check(begin(*arguments, byref(pointer)))
        return Pending(self, Owned(pointer.value, library.crosspoint_pending_free), result, (arguments, kept))

    @property
    def statistics(self) -> Statistics:
        """What this rank moved since :meth:`reset_statistics`."""
        s = StatisticsOfC.new()
        check(library.crosspoint_exchange_statistics(self._pointer, byref(s)))
        traffic = [
            Traffic(*values) for values in zip(s.wire_bytes, s.node_bytes, s.uncompressed_bytes, s.local_bytes)
        ]
        phases = ("hash", "cluster", "encode", "skew", "wait", "decode", "policy")
        return Statistics(
            s.dispatches,
            s.rows_routed,
            s.rows_sent,
            *traffic,
            s.residual_squared,
            s.token_squared,
            {phase: getattr(s, phase + "_seconds") for phase in phases},
            s.slowest_rank,
            s.peak_buffer_bytes,
        )

    def reset_statistics(self) -> None:
        """Forgets what was counted."""
        check(library.crosspoint_exchange_reset_statistics(self._pointer))

    def settle(self) -> None:
        """Returns when no rank has failed in any transfer so far, of whichever exchange of the fabric. Collective.

        For ``agreement=deferred``: at the end of a step, before anything is kept of its results.

        :raises CrosspointError: what went wrong on any rank, the same on every rank.
        """
        check(library.crosspoint_exchange_settle(self._pointer))

    def save(self) -> str:
        """What training needs to go on bit for bit, the same on every rank."""
        needed = ctypes.c_int64()
        check(library.crosspoint_exchange_save(self._pointer, None, 0, byref(needed)))
        text = ctypes.create_string_buffer(needed.value)
        check(library.crosspoint_exchange_save(self._pointer, text, needed.value, None))
        return text.value.decode()

    def restore(self, text: str) -> None:
        """Continues from what :meth:`save` gave: on every rank or on none."""
        check(library.crosspoint_exchange_restore(self._pointer, text.encode()))

    def set_adapts(self, adapts: bool) -> None:
        """Whether a budget goes on choosing and a memory learning: ``False`` while evaluating."""
        check(library.crosspoint_exchange_set_adapts(self._pointer, adapts))


class Pending:
    """A transfer that has been begun, to be finished later. ::

        pending = exchange.begin_dispatch(tokens, experts, weights)
        y = shared_experts(tokens)  # while bytes are under way
        handle = pending.finish()

    Any number of transfers can be under way, also of several exchanges. Every rank begins and finishes them in the same
    order, and between them all else that communicates. Leave the arrays that you pass in unchanged until then. Bad arguments
    on one rank are raised by :meth:`finish`, on all. A transfer that is dropped is finished then, and its errors are lost. With
    a budget one transfer of an exchange can be under way.
    """

    __slots__ = ("_owned", "_exchange", "_result", "_kept")

    def __init__(self, exchange: Exchange, owned: Owned, result: Callable[[], Any], kept: Any):
        self._owned = owned
        self._exchange = exchange
        self._result = result
        self._kept = kept

    def finish(self) -> Any:
        """Waits for the transfer. Collective, once.

        :returns: what the plain call returns.
        """
        self._exchange.fabric._check(library.crosspoint_pending_finish(self._owned.pointer))
        result = self._result()
        self._kept = self._result = None
        return result


class Handle:
    """What one dispatch leaves behind: the rows received, and the way home.

    Use it once: ``dispatch``, ``combine`` and, when training, ``combine_backward``, ``dispatch_backward``. Its arrays are
    views of memory that goes back to the exchange when the handle and all of them have gone.
    """

    __slots__ = ("_owned", "_pointer", "exchange", "tokens", "top_k", "rows")

    def __init__(self, exchange: Exchange, owned: Owned, shape: Tuple[int, int]):
        self._owned = owned
        self._pointer = owned.pointer
        self.exchange = exchange
        #: Tokens that this rank dispatched, and choices of each.
        self.tokens, self.top_k = shape
        rows = exchange._wanted
        check(library.crosspoint_handle_rows(self._pointer, byref(rows)))
        #: ``(rows, hidden)``: rows for this rank's experts, grouped by local expert, within an expert by source rank.
        self.rows: np.ndarray = self._view(rows)

    @property
    def rows_per_expert(self) -> np.ndarray:
        """``(local experts,)``: rows of each of this rank's experts."""
        counts = np.empty(len(self.exchange.local_experts), np.int64)
        check(library.crosspoint_handle_rows_per_expert(self._pointer, _address(counts), counts.size))
        return counts

    def outputs(self) -> np.ndarray:
        """``(rows, hidden)``: where experts may write their outputs. Leave them unchanged from ``combine`` until
        ``combine_backward`` has returned: other ranks read them."""
        rows = Rows.new()
        check(library.crosspoint_handle_outputs(self._pointer, byref(rows)))
        return self._view(rows)

    def row_gradients(self) -> np.ndarray:
        """``(rows, hidden)``: where experts may write the gradients of their rows."""
        rows = Rows.new()
        check(library.crosspoint_handle_row_gradients(self._pointer, byref(rows)))
        return self._view(rows)

    def weight_gradients(self) -> np.ndarray:
        """``(T, K)``: of the loss by the routing's weights; 0 where a choice was not sent. Complete after
        ``combine_backward``; with ``copies=rank`` or ``node`` after ``dispatch_backward``."""
        gradients = np.empty((self.tokens, self.top_k), np.float32)
        check(library.crosspoint_handle_weight_gradients(self._pointer, _address(gradients), gradients.size))
        return gradients

    def _view(self, rows: Rows) -> np.ndarray:
        if rows.rows == 0:
            return np.empty((0, rows.columns), self.exchange.dtype)
        return np.asarray(_Memory(rows, self.exchange.dtype, self._owned))


class _Memory:
    """Memory of a handle, which lives as long as an array of it does."""

    __slots__ = ("__array_interface__", "_owned")

    def __init__(self, rows: Rows, dtype: np.dtype, owned: Owned):
        self.__array_interface__ = {
            "data": (rows.data, False),
            "shape": (rows.rows, rows.columns),
            "typestr": dtype.str,
            "version": 3,
        }
        self._owned = owned


_Bytes = ctypes.c_char * 0


def _address(array: np.ndarray) -> int:
    try:
        return ctypes.addressof(_Bytes.from_buffer(array))
    except (TypeError, ValueError):  # read-only, with gaps, or of a type that only numpy knows
        return array.__array_interface__["data"][0]


def _labels(labels: np.ndarray, tokens: int) -> np.ndarray:
    """As int32, contiguous; a copy where they are not."""
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.shape != (tokens,):
        raise Refusal("labels", f"{_describe(labels)}; integers of shape ({tokens},) are expected")
    return np.ascontiguousarray(_narrowed(labels, "labels"))


def _narrowed(numbers: np.ndarray, argument: str) -> np.ndarray:
    """As int32; numbers of which the library can say nothing are refused."""
    if numbers.dtype != np.int32:
        if numbers.size and not -(2**31) <= numbers.min() <= numbers.max() < 2**31:
            raise Refusal(argument, f"numbers from {numbers.min()} to {numbers.max()}, which are no {argument}")
        numbers = numbers.astype(np.int32)
    return numbers


def _routing(experts: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Indices as int32 and weights as float32, contiguous; copies where they are not."""
    if not isinstance(experts, np.ndarray) or experts.dtype.kind not in "iu" or experts.ndim != 2:
        raise Refusal("experts", f"{_describe(experts)}; integers of shape (tokens, choices) are expected")
    if not isinstance(weights, np.ndarray) or weights.dtype != np.float32 or weights.shape != experts.shape:
        raise Refusal("weights", f"{_describe(weights)}; float32 of shape {experts.shape} is expected")
    return np.ascontiguousarray(_narrowed(experts, "experts")), np.ascontiguousarray(weights)
