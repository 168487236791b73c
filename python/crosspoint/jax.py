"""Crosspoint for JAX on the CPU: transfers that work under ``jit`` and ``grad``, by the names of Transformer Engine.

Shapes are static under jit, so rows come in an array of fixed capacity, of which the first ``sum(token_counts)`` are in use.
docs/jax.md shows how. Each transfer is a foreign function of XLA that the library itself has: no Python runs in it.
"""

import ctypes
import functools
from typing import Any, Optional, Tuple

import jax
import jax.numpy as jnp
import numpy as np

from ._errors import Code, CrosspointError, check
from ._exchange import Exchange
from ._fabric import Fabric
from ._library import byref, library

__all__ = ["ep_combine", "ep_dispatch"]


def _register() -> None:
    """Tells XLA where the library's functions are, which XLA asks for the version of its interface that they fit."""
    for name in ("dispatch", "combine", "combine_backward", "dispatch_backward"):
        function = jax.ffi.pycapsule(getattr(library, f"crosspoint_xla_{name}"))
        try:
            jax.ffi.register_ffi_target(f"crosspoint_{name}", function, platform="cpu")
        except jax.errors.JaxRuntimeError as error:
            raise CrosspointError(Code.INVALID_ARGUMENT, "crosspoint.jax", "jax", f"{jax.__version__}: {error}") from error


def _wait() -> None:
    """For what this thread has launched. Its errors are raised where its results are asked for."""
    try:
        jax.effects_barrier()
    except jax.errors.JaxRuntimeError:
        pass


_register()
Fabric._in_flight.append(_wait)


def ep_dispatch(
    handle: Exchange,
    topk_idx: jax.Array,
    tokens: jax.Array,
    topk_weights: jax.Array,
    recv_capacity_per_rank: Optional[int] = None,
    *,
    labels: Optional[jax.Array] = None,
    after: Optional[jax.Array] = None,
) -> Tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Sends every routed token to the ranks of its experts. Collective, and so is its backward pass.

    :param handle: the exchange of the layer, which must live as long as the program that is traced here.
    :param topk_idx: ``(T, K)`` integers: experts; -1 is not sent.
    :param tokens: ``(T, hidden)`` float32, or with the option ``rows=bf16`` bfloat16, and so are all rows; T may differ between
        ranks.
    :param topk_weights: ``(T, K)`` float32; :func:`ep_combine` applies them, and their gradient comes with that of the tokens.
    :param recv_capacity_per_rank: rows that there is room for, at least 1. If more come, they are NaN, and :func:`ep_combine`
        raises on every rank. ``None``: as many as can come where every rank has T tokens.
    :param labels: ``(T,)`` integers, for the option ``memory=N``: see :meth:`crosspoint.Exchange.dispatch`.
    :param after: an array of floats, not empty, that must be there before: for example the result of another layer that this
        one does not depend on. The backward passes come in the opposite order.
    :returns: ``recv_tokens (capacity, hidden)``: rows for this rank's experts, grouped by local expert, then zeros;
        ``recv_topk_weights (capacity,)``: 1 where a row has come, else 0, for weights stay at home; ``handle_mem``: which
        dispatch it was, for :func:`ep_combine`; ``token_counts (local experts,)`` int32: rows of each, as
        ``jax.lax.ragged_dot`` takes them.
    """
    _require_device(handle)
    _check(handle, "tokens", tokens, _type(handle), (None, handle.hidden))
    _check(handle, "topk_idx", topk_idx, jnp.integer, (tokens.shape[0], None))
    _check(handle, "topk_weights", topk_weights, jnp.float32, tuple(topk_idx.shape))
    if labels is not None:
        _check(handle, "labels", labels, jnp.integer, tuple(tokens.shape[:1]))
        labels = _int32(labels)
    capacity = recv_capacity_per_rank
    if capacity is None:
        capacity = max(1, handle.fabric.rank_count * len(tokens) * min(topk_idx.shape[1], len(handle.local_experts)))
    elif capacity < 1:
        _refuse(handle, "ep_dispatch", "recv_capacity_per_rank", f"{capacity}; at least 1 is expected")
    if after is not None:
        after = jnp.asarray(after)
        if not after.size or not jnp.issubdtype(after.dtype, jnp.floating):
            found = f"{after.dtype} of shape {after.shape}"
            _refuse(handle, "ep_dispatch", "after", f"{found}; floats are expected, at least one: XLA drops what has no elements")
    after = jnp.zeros(1) if after is None else after.ravel()[:1].astype(jnp.float32)
    return _dispatch(handle, capacity, tokens, _int32(topk_idx), topk_weights, after, labels)


def ep_combine(
    handle: Exchange,
    handle_mem: jax.Array,
    token_counts: jax.Array,
    expert_out: jax.Array,
    recv_topk_weights: jax.Array,
    num_local_tokens: int,
) -> jax.Array:
    """Brings the experts' outputs home: ``y[t] = sum over k of topk_weights[t, k] * output``. Collective, and so is its
    backward pass.

    :param handle: that of the dispatch, as are ``handle_mem``, ``token_counts`` and ``recv_topk_weights`` its results.
    :param expert_out: ``(capacity, hidden)``, in the order of ``recv_tokens``; only rows in use are read.
    :param num_local_tokens: T of the dispatch.
    :returns: ``(T, hidden)``; zeros for tokens that were sent nowhere.
    """
    _check(handle, "handle_mem", handle_mem, jnp.uint8, _MEMORY.shape, "ep_combine")
    _check(handle, "recv_topk_weights", recv_topk_weights, jnp.float32, (None,), "ep_combine")
    rows = (len(recv_topk_weights), handle.hidden)
    _check(handle, "expert_out", expert_out, _type(handle), rows, "ep_combine")
    return _combine(handle, num_local_tokens, expert_out, recv_topk_weights, handle_mem)


def _transfer(name: str, handle: Exchange, results: Any, *arrays: jax.Array, has_backward: bool = False) -> Any:
    number = ctypes.c_int64()
    check(library.crosspoint_xla_exchange(handle._pointer, byref(number)))
    call = jax.ffi.ffi_call(f"crosspoint_{name}", results, has_side_effect=True, vmap_method="sequential")
    return call(*arrays, exchange=np.int64(number.value), has_backward=np.int64(has_backward))


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


_MEMORY = jax.ShapeDtypeStruct((8,), jnp.uint8)


def _type(handle: Exchange) -> Any:
    """Of rows."""
    return jnp.bfloat16 if handle.dtype == np.uint16 else jnp.float32


def _rows(handle: Exchange, count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, handle.hidden), _type(handle))


def _int32(numbers: jax.Array) -> jax.Array:
    """What does not fit becomes what the library refuses too."""
    ours, theirs = jnp.iinfo(jnp.int32), jnp.iinfo(numbers.dtype)
    if theirs.max > ours.max:
        numbers = jnp.clip(numbers, max(ours.min, theirs.min), ours.max)
    return numbers.astype(jnp.int32)


# Autodiff follows `after` and `recv_topk_weights`, whose gradients are zeros: backward transfers then depend on each other as
# forward ones do, also where no gradient does.


def _call_dispatch(handle, capacity, has_backward, *arrays):
    counts = jax.ShapeDtypeStruct((len(handle.local_experts),), jnp.int32)
    results = (_rows(handle, capacity), _floats(capacity), _MEMORY, counts)
    given = (array for array in arrays if array is not None)
    return _transfer("dispatch", handle, results, *given, has_backward=has_backward)


def _call_combine(handle, tokens, has_backward, outputs, memory):
    results = (_rows(handle, tokens), _MEMORY)
    return _transfer("combine", handle, results, memory, outputs, has_backward=has_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _dispatch(handle, capacity, tokens, experts, weights, after, labels):
    return _call_dispatch(handle, capacity, False, tokens, experts, weights, after, labels)


def _dispatch_forward(handle, capacity, tokens, experts, weights, after, labels):
    found = _call_dispatch(handle, capacity, True, tokens, experts, weights, after, labels)
    return found, (found[2], jnp.empty((*experts.shape, 0)))


def _dispatch_backward(handle, capacity, kept, gradients):
    memory, shape = kept
    results = (_rows(handle, shape.shape[0]), _floats(*shape.shape[:2]), _floats(1))
    tokens, weights, after = _transfer("dispatch_backward", handle, results, memory, gradients[0], gradients[1])
    return tokens, None, weights, after, None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _combine(handle, tokens, outputs, in_use, memory):
    return _call_combine(handle, tokens, False, outputs, memory)[0]


def _combine_forward(handle, tokens, outputs, in_use, memory):
    y, memory = _call_combine(handle, tokens, True, outputs, memory)
    return y, (memory, jnp.empty((outputs.shape[0], 0)))


def _combine_backward(handle, tokens, kept, gradient):
    memory, shape = kept
    capacity = shape.shape[0]
    results = (_rows(handle, capacity), _floats(capacity))
    return *_transfer("combine_backward", handle, results, memory, gradient), None


_dispatch.defvjp(_dispatch_forward, _dispatch_backward)
_combine.defvjp(_combine_forward, _combine_backward)


def _check(handle, argument, array, kind, shape, operation="ep_dispatch"):
    """Shapes and types are static: what is wrong is an error while tracing, before any transfer, on this rank alone."""
    dtype, found = getattr(array, "dtype", None), getattr(array, "shape", None)
    fits = found is not None and len(found) == len(shape) and all(b in (None, a) for a, b in zip(found, shape))
    is_right = dtype is not None and (jnp.issubdtype(dtype, kind) if kind is jnp.integer else dtype == kind)
    if fits and is_right:
        return
    given = type(array).__name__ if found is None else f"{dtype} of shape {found}"
    name = "integers" if kind is jnp.integer else jnp.dtype(kind).name
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    _refuse(handle, operation, argument, f"{given}; {name} of shape ({wanted}) are expected")


def _require_device(handle):
    """Programs of one device wait for each other, and one rank's for another rank's would do so for ever."""
    fabric = handle.fabric
    device = getattr(jax.config.jax_default_device, "id", 0)
    if not fabric.is_mpi and fabric.rank_count > 1 and device != fabric.rank:
        message = (
            f"simulated rank {fabric.rank} on device {device}: start with "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={fabric.rank_count} and run each rank in "
            "`with jax.default_device(jax.devices()[fabric.rank])`"
        )
        _refuse(handle, "ep_dispatch", "fabric", message)


def _refuse(handle, operation, argument, message):
    raise CrosspointError(Code.INVALID_ARGUMENT, operation, argument, message, rank=handle.fabric.rank)
