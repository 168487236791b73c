"""Crosspoint for PyTorch: transfers that autograd knows, and a layer of experts spread over ranks.

Tensors are float32, or with the option ``rows=bf16`` bfloat16, on the CPU. docs/torch.md shows how.
"""

import types
from typing import Any, Callable, Optional

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ._exchange import Exchange, Handle
from ._fabric import Fabric

__all__ = ["Dispatched", "ExpertParallel", "Pending", "begin_combine", "begin_dispatch", "combine", "dispatch"]


class Dispatched:
    """What :func:`dispatch` leaves for :func:`combine`."""

    __slots__ = ("handle", "rows")

    def __init__(self, handle: Handle, rows: torch.Tensor):
        self.handle = handle
        #: ``(rows, hidden)``: rows for this rank's experts, grouped by local expert; part of the graph. Memory of the
        #: exchange, which it gets back when the last tensor that needs it is gone.
        self.rows = rows

    @property
    def rows_per_expert(self) -> "list[int]":
        """Rows of each of this rank's experts."""
        return self.handle.rows_per_expert.tolist()


def dispatch(
    exchange: Exchange,
    tokens: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    labels: Optional[torch.Tensor] = None,
) -> Dispatched:
    """Sends every routed token to the ranks of its experts. Collective, and so is its backward pass.

    :param tokens: ``(T, hidden)`` float32, or with the option ``rows=bf16`` bfloat16, and so are all rows; T may differ between ranks.
    :param experts: ``(T, K)`` integers, for example from ``torch.topk``; -1 is not sent.
    :param weights: ``(T, K)`` float32, for example from a softmax; :func:`combine` applies them, and their gradient comes
        with that of the tokens.
    :param labels: ``(T,)`` integers, for the option ``memory=N``: see :meth:`crosspoint.Exchange.dispatch`.
    """
    return begin_dispatch(exchange, tokens, experts, weights, labels).wait()


def begin_dispatch(
    exchange: Exchange,
    tokens: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    labels: Optional[torch.Tensor] = None,
) -> "Pending":
    """Begins :func:`dispatch`: see :class:`Pending`. Collective, but waits for nobody."""
    pending = exchange.begin_dispatch(
        _array(tokens, exchange.dtype), *(_array(tensor) for tensor in (experts, weights, labels))
    )

    def finish() -> Dispatched:
        made = []
        rows = _Dispatch.apply(tokens, weights, pending, made)
        return Dispatched(made[0], rows)

    return Pending(finish)


def combine(dispatched: Dispatched, outputs: torch.Tensor) -> torch.Tensor:
    """Brings the experts' outputs home: ``y[t] = sum over k of weights[t, k] * output``. Collective, and so is its backward
    pass.

    :param outputs: ``(rows, hidden)``, in the order of ``dispatched.rows``.
    :returns: ``(T, hidden)``; zeros for tokens that were sent nowhere.
    """
    return begin_combine(dispatched, outputs).wait()


def begin_combine(dispatched: Dispatched, outputs: torch.Tensor) -> "Pending":
    """Begins :func:`combine`: see :class:`Pending`. Collective, but waits for nobody."""
    handle = dispatched.handle
    pending = handle.exchange.begin_combine(handle, _array(outputs, handle.exchange.dtype))
    return Pending(lambda: _Combine.apply(outputs, dispatched.rows, handle, pending))


class Pending:
    """A transfer that has been begun. ::

        pending = crosspoint.torch.begin_dispatch(exchange, tokens, experts, weights)
        shared = shared_experts(tokens)  # while bytes are under way
        dispatched = pending.wait()

    Any number can be under way. All ranks begin them and wait for them in the same order. Leave the tensors unchanged until
    then. The backward pass of a transfer is one call.
    """

    __slots__ = ("_finish",)

    def __init__(self, finish: Callable[[], Any]):
        self._finish = finish

    def wait(self) -> Any:
        """Collective, once.

        :returns: what the plain call returns, part of the graph.
        """
        return self._finish()


class ExpertParallel(torch.nn.Module):
    """Experts spread over ranks: a token's output is the weighted sum of those of its experts, wherever they are.

    Each rank makes the experts that it holds, by ``make(number)``. Their parameters belong to this rank alone: do not
    average their gradients over ranks.

    :param options: as :class:`crosspoint.Exchange`.
    """

    def __init__(
        self,
        fabric: Fabric,
        *,
        experts: int,
        hidden: int,
        make: Callable[[int], torch.nn.Module],
        options: str = "",
        layer: int = 0,
    ):
        super().__init__()
        self.exchange = Exchange(fabric, experts=experts, hidden=hidden, options=options, layer=layer)
        #: This rank's experts.
        self.experts = torch.nn.ModuleList(make(number) for number in self.exchange.local_experts)

    def forward(
        self,
        tokens: torch.Tensor,
        experts: torch.Tensor,
        weights: torch.Tensor,
        labels: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        """Collective.

        :param tokens: ``(..., hidden)``.
        :param experts: ``(..., K)`` integers; -1 is not sent.
        :param weights: ``(..., K)``.
        :param labels: ``(...)`` integers: see :func:`dispatch`.
        :returns: as ``tokens``.
        """
        flat = [tensor.reshape(-1, tensor.shape[-1]) for tensor in (tokens, experts, weights)]
        dispatched = dispatch(self.exchange, *flat, labels if labels is None else labels.reshape(-1))
        pieces = dispatched.rows.split(dispatched.rows_per_expert)
        outputs = [expert(rows) for expert, rows in zip(self.experts, pieces)]
        y = combine(dispatched, torch.cat(outputs) if outputs else dispatched.rows)
        return y.reshape(tokens.shape)

    def get_extra_state(self) -> str:
        """The exchange's state is part of the module's."""
        return self.exchange.save()

    def set_extra_state(self, state: str) -> None:
        self.exchange.restore(state)

    def extra_repr(self) -> str:
        return f"experts={self.exchange.experts}, local={self.exchange.local_experts}, {self.exchange.options}"


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens, weights, pending, made: list) -> torch.Tensor:
        handle = pending.finish()
        made.append(handle)
        ctx.handle = handle
        return _tensor(handle.rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, row_gradients: torch.Tensor):
        handle = ctx.handle
        tokens = handle.exchange.dispatch_backward(handle, _array(row_gradients, handle.exchange.dtype))
        return _tensor(tokens), torch.from_numpy(handle.weight_gradients()), None, None


class _Combine(torch.autograd.Function):
    """The rows are an argument so that the backward pass of their dispatch runs on every rank, also on one whose outputs do
    not depend on them."""

    @staticmethod
    def forward(ctx: Any, outputs, rows, handle: Handle, pending) -> torch.Tensor:
        ctx.handle = handle
        return _tensor(pending.finish())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor):
        exchange = ctx.handle.exchange
        return _tensor(exchange.combine_backward(ctx.handle, _array(gradient, exchange.dtype))), None, None, None


def _array(tensor: torch.Tensor, rows: Optional[np.dtype] = None) -> Any:
    """The tensor's memory; a copy of rows that are not contiguous, such as the gradient of a sum. What numpy does not know
    is described, for the exchange to refuse on every rank.

    :param rows: of the exchange, where these are rows: numpy knows bfloat16 as its bits.
    """
    if not isinstance(tensor, torch.Tensor):
        return tensor
    is_bits = tensor.dtype is torch.bfloat16 and rows == np.uint16
    if tensor.device.type != "cpu" or (tensor.dtype is torch.bfloat16 and not is_bits):
        return types.SimpleNamespace(dtype=f"{tensor.dtype} on {tensor.device}", shape=tuple(tensor.shape))
    if tensor.dim() == 2 and (tensor.stride(1) != 1 or tensor.stride(0) < tensor.shape[1]):
        tensor = tensor.contiguous()
    tensor = tensor.detach()
    return tensor.view(torch.int16).numpy().view(np.uint16) if is_bits else tensor.numpy()


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _options(options: str, tokens: torch.Tensor) -> str:
    """Where nothing is said, bfloat16 rows travel as they lie."""
    return options or ("rows=bf16" if tokens.dtype is torch.bfloat16 else "")


def _rows(exchange: Exchange, tensor: torch.Tensor) -> torch.Tensor:
    """As the exchange takes them: bfloat16 where its rows are, else widened."""
    return tensor if tensor.dtype is torch.bfloat16 and exchange.dtype == np.uint16 else _widened(tensor)
