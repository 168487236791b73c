"""Crosspoint for JAX on the CPU: transfers that work under ``jit`` and ``grad``.

Shapes are static under jit, so rows come in an array of fixed capacity, of which the first ``sum(rows_per_expert)`` are in
use. docs/jax.md shows how.

Each transfer is an ordered ``io_callback``: every rank makes them in the order in which its program was traced. XLA's
foreign functions would save the copies, but are called with XLA's own frame, which only compiled code can read.
"""

import functools
import itertools
from typing import Any, Dict, Optional, Tuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from ._errors import Code, CrosspointError, Refusal
from ._exchange import _COMBINE, Exchange, Handle

__all__ = ["Dispatched", "combine", "dispatch"]


@jax.tree_util.register_pytree_node_class
class Dispatched:
    """What :func:`dispatch` leaves for :func:`combine`; a pytree."""

    def __init__(self, exchange: Exchange, tokens: int, rows: jax.Array, rows_per_expert: jax.Array, number: jax.Array):
        self.exchange = exchange
        #: Tokens that this rank dispatched.
        self.tokens = tokens
        #: ``(capacity, hidden)``: rows for this rank's experts, grouped by local expert, then zeros.
        self.rows = rows
        #: ``(local experts,)`` int32: rows of each, as ``jax.lax.ragged_dot`` takes them.
        self.rows_per_expert = rows_per_expert
        #: Which dispatch it was. Autodiff follows it, so that backward transfers come in their order.
        self.number = number

    def tree_flatten(self) -> Tuple[Any, Any]:
        return (self.rows, self.rows_per_expert, self.number), (self.exchange, self.tokens)

    @classmethod
    def tree_unflatten(cls, static: Any, children: Any) -> "Dispatched":
        return cls(*static, *children)


def dispatch(
    exchange: Exchange,
    tokens: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    labels: Optional[jax.Array] = None,
    *,
    capacity: Optional[int] = None,
) -> Dispatched:
    """Sends every routed token to the ranks of its experts. Collective, and so is its backward pass.

    :param tokens: ``(T, hidden)`` float32, or with the option ``rows=bf16`` bfloat16, and so are all rows; T may differ between ranks.
    :param experts: ``(T, K)`` integers; -1 is not sent.
    :param weights: ``(T, K)`` float32; :func:`combine` applies them, and their gradient comes with that of the tokens.
    :param labels: ``(T,)`` integers, for the option ``memory=N``: see :meth:`crosspoint.Exchange.dispatch`.
    :param capacity: rows that there is room for. If more come, they are NaN, and :func:`combine` raises on every rank.
        ``None``: as many as can come where every rank has T tokens.
    """
    _check(exchange, "tokens", tokens, _type(exchange), (None, exchange.hidden))
    _check(exchange, "experts", experts, jnp.integer, (tokens.shape[0], None))
    _check(exchange, "weights", weights, jnp.float32, tuple(experts.shape))
    if labels is not None:
        _check(exchange, "labels", labels, jnp.integer, tuple(tokens.shape[:1]))
    if capacity is None:
        capacity = exchange.fabric.rank_count * tokens.shape[0] * min(experts.shape[1], len(exchange.local_experts))
    return Dispatched(exchange, tokens.shape[0], *_dispatch(exchange, capacity, tokens, experts, weights, labels))


def combine(dispatched: Dispatched, outputs: jax.Array) -> jax.Array:
    """Brings the experts' outputs home: ``y[t] = sum over k of weights[t, k] * output``. Collective, and so is its backward
    pass.

    :param outputs: ``(capacity, hidden)``, in the order of ``dispatched.rows``.
    :returns: ``(T, hidden)``; zeros for tokens that were sent nowhere.
    """
    exchange = dispatched.exchange
    _check(exchange, "outputs", outputs, _type(exchange), dispatched.rows.shape, "combine")
    return _combine(exchange, dispatched.tokens, outputs, dispatched.number)


class _Open:
    """A dispatch with transfers still to come."""

    __slots__ = ("handle", "has_backward", "refusal")

    def __init__(self, handle: Handle, has_backward: bool):
        self.handle = handle
        #: Whether autodiff will ask for the backward pass of the dispatch.
        self.has_backward = has_backward
        self.refusal: Optional[Refusal] = None


_open: Dict[int, _Open] = {}
_numbers = itertools.count(1)
# A number is a float32, which holds every integer up to here.
_NUMBERS = 1 << 24


def _take(number: Any) -> _Open:
    """Whoever has a transfer to follow puts it back; not after an error."""
    if int(number) not in _open:
        raise CrosspointError(Code.HANDLE_MISUSE, "crosspoint.jax", "dispatched", "it has had all its transfers")
    return _open.pop(int(number))


def _call(function, results, *arguments):
    return io_callback(function, results, *arguments, ordered=True)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _type(exchange: Exchange) -> Any:
    """Of rows."""
    return jnp.bfloat16 if exchange.dtype == np.uint16 else jnp.float32


def _rows(exchange: Exchange, count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, exchange.hidden), _type(exchange))


def _padded(exchange: Exchange, rows: np.ndarray, capacity: int) -> np.ndarray:
    result = np.zeros((capacity, rows.shape[1]), exchange.dtype)
    result[: len(rows)] = rows
    return result.view(_type(exchange))


def _call_dispatch(exchange, capacity, has_backward, *arrays):
    def transfer(*arrays):
        handle = exchange.dispatch(*(array if array is None else np.ascontiguousarray(array) for array in arrays))
        opened = _Open(handle, has_backward)
        number = next(_numbers) % _NUMBERS
        _open[number] = opened
        count = len(handle.rows)
        if count > capacity:
            opened.refusal = Refusal("capacity", f"{capacity}; {count} rows have come")
            rows = np.full((capacity, exchange.hidden), np.nan, _type(exchange))
        else:
            rows = _padded(exchange, handle.rows, capacity)
        return rows, handle.rows_per_expert.astype(np.int32), np.float32(number)

    counts = jax.ShapeDtypeStruct((len(exchange.local_experts),), jnp.int32)
    return _call(transfer, (_rows(exchange, capacity), counts, _floats()), *arrays)


def _call_combine(exchange, tokens, has_backward, outputs, number):
    def transfer(outputs, number):
        opened = _take(number)
        if opened.refusal:
            exchange._refuse(_COMBINE, opened.handle, opened.refusal, False)
        y = exchange.combine(opened.handle, np.ascontiguousarray(outputs)[: len(opened.handle.rows)])
        if has_backward:
            _open[int(number)] = opened
        return y.view(_type(exchange))

    return _call(transfer, _rows(exchange, tokens), outputs, number)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _dispatch(exchange, capacity, tokens, experts, weights, labels):
    return _call_dispatch(exchange, capacity, False, tokens, experts, weights, labels)


def _dispatch_forward(exchange, capacity, tokens, experts, weights, labels):
    found = _call_dispatch(exchange, capacity, True, tokens, experts, weights, labels)
    return found, (found[2], jnp.empty((tokens.shape[0], experts.shape[1], 0)))


def _dispatch_backward(exchange, capacity, kept, gradients):
    def transfer(row_gradients, number, _):
        handle = _take(number).handle
        tokens = exchange.dispatch_backward(handle, np.ascontiguousarray(row_gradients)[: len(handle.rows)])
        return tokens.view(_type(exchange)), handle.weight_gradients()

    number, shape = kept
    row_gradients, _, after = gradients
    tokens, weights = _call(
        transfer, (_rows(exchange, shape.shape[0]), _floats(*shape.shape[:2])), row_gradients, number, after
    )
    return tokens, None, weights, None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _combine(exchange, tokens, outputs, number):
    return _call_combine(exchange, tokens, False, outputs, number)


def _combine_forward(exchange, tokens, outputs, number):
    return _call_combine(exchange, tokens, True, outputs, number), (number, jnp.empty((outputs.shape[0], 0)))


def _combine_backward(exchange, tokens, kept, gradient):
    def transfer(gradient, number):
        opened = _take(number)
        gradients = exchange.combine_backward(opened.handle, np.ascontiguousarray(gradient))
        if opened.has_backward:
            _open[int(number)] = opened
        return _padded(exchange, gradients, capacity), np.float32(0)

    number, shape = kept
    capacity = shape.shape[0]
    return _call(transfer, (_rows(exchange, capacity), _floats()), gradient, number)


_dispatch.defvjp(_dispatch_forward, _dispatch_backward)
_combine.defvjp(_combine_forward, _combine_backward)


def _check(exchange, argument, array, kind, shape, operation="dispatch"):
    """Shapes and types are static: what is wrong is an error while tracing, before any transfer, on this rank alone."""
    dtype, found = getattr(array, "dtype", None), getattr(array, "shape", None)
    fits = found is not None and len(found) == len(shape) and all(b in (None, a) for a, b in zip(found, shape))
    is_right = dtype is not None and (jnp.issubdtype(dtype, kind) if kind is jnp.integer else dtype == kind)
    if fits and is_right:
        return
    given = type(array).__name__ if found is None else f"{dtype} of shape {found}"
    name = "integers" if kind is jnp.integer else jnp.dtype(kind).name
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    message = f"{given}; {name} of shape ({wanted}) are expected"
    raise CrosspointError(Code.INVALID_ARGUMENT, operation, argument, message, rank=exchange.fabric.rank)
