"""DeepEP's calls on CPU tensors, so that programs that are written for it run and can be tested where there is no GPU.

``Buffer`` has the calls of DeepEP's normal kernels: ``get_dispatch_layout``, ``dispatch``, ``combine``. A token travels once
to each rank that holds one of its experts, ``combine`` sums without weights, and each is the other's backward pass by the
handle. Tensors are float32 or bfloat16; sums are taken in float32. What cannot be here raises ``NotImplementedError``.
docs/torch.md shows how.
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from ._agreement import agree
from ._errors import Refusal
from ._exchange import Exchange
from ._exchange import Handle as ExchangeHandle
from ._fabric import Fabric, _describe

__all__ = ["Buffer", "Config", "EventOverlap", "Handle"]

_DTYPES = (torch.float32, torch.bfloat16)
_CALLS = ("combine", "dispatch", "dispatch with a handle")
# What all ranks must say the same of a call; the first call has the number 0.
_FACTS = dict.fromkeys(("call", "hidden", "dtype", "handle", "experts", "choices"), 0)
_WORDS = {"call": _CALLS, "dtype": tuple(str(dtype) for dtype in _DTYPES)}
# As in DeepEP NaN and infinity travel. Rows that were bfloat16 lose nothing in a wire format of that name.
_OPTIONS = {
    torch.float32: "non-finite=propagate",
    torch.bfloat16: "non-finite=propagate,wire=bf16,within-node=plain",
}
_HANDLES = 1 << 20


class Config:
    """What tunes DeepEP's kernels: without effect."""

    def __init__(self, *numbers: int):
        self.numbers = numbers

    def get_nvl_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """0: memory grows with need."""
        return 0

    def get_rdma_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """0: memory grows with need."""
        return 0


class EventOverlap:
    """The end of a call. Calls return when they have ended, so there is nothing to wait for."""

    def __init__(self, event: Any = None, extra_tensors: Optional[Tuple[torch.Tensor, ...]] = None):
        self.event = event
        self.extra_tensors = extra_tensors

    def current_stream_wait(self) -> None:
        """Returns at once."""

    def __enter__(self) -> "EventOverlap":
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class Handle:
    """Where the tokens of one dispatch went; for any number of dispatches and combines, in any order."""

    __slots__ = ("number", "experts", "num_recv_tokens", "pending")

    def __init__(self, number: int, is_token_in_rank: np.ndarray):
        self.number = number
        #: ``(T, ranks)``: a rank is an expert, -1 where the token does not go.
        self.experts = np.where(is_token_in_rank, np.arange(is_token_in_rank.shape[1], dtype=np.int32), np.int32(-1))
        #: Tokens that this rank receives.
        self.num_recv_tokens = 0
        #: Dispatches whose combine has not been called, by exchange.
        self.pending: Dict[Exchange, ExchangeHandle] = {}

    def send(self, exchange: Exchange, rows: np.ndarray) -> np.ndarray:
        """Rows that this rank receives, by source rank, then by token."""
        sent = exchange.dispatch(rows, self.experts, np.ones(self.experts.shape, np.float32))
        self.pending[exchange] = sent
        return sent.rows

    def sum(self, exchange: Exchange, rows: np.ndarray) -> np.ndarray:
        """Rows of this rank home, where those of a token are summed."""
        if exchange not in self.pending:
            # The way home belongs to a dispatch.
            self.send(exchange, np.zeros((len(self.experts), exchange.hidden), np.float32))
        return exchange.combine(self.pending.pop(exchange), rows)


class Buffer:
    """Sends tokens to the ranks of their experts, and sums what comes back. Rank r of R holds experts
    ``r * E / R ... (r + 1) * E / R - 1``.

    Making one is collective, and so are :meth:`dispatch` and :meth:`combine`: every rank calls them, in the same order, also
    with zero tokens. Bad arguments on one rank raise the same :class:`crosspoint.CrosspointError` on all.

    :param group: a process group of torch.distributed whose processes mpirun started, or a :class:`crosspoint.Fabric`.
    :param num_nvl_bytes: without effect, as ``num_rdma_bytes``: memory grows with need.
    :param comm: a communicator of mpi4py, in place of a group.
    """

    num_sms = 20

    def __init__(
        self,
        group: Any = None,
        num_nvl_bytes: int = 0,
        num_rdma_bytes: int = 0,
        low_latency_mode: bool = False,
        num_qps_per_rank: Optional[int] = None,
        allow_nvlink_for_low_latency_mode: bool = True,
        allow_mnnvl: bool = False,
        use_fabric: bool = False,
        explicitly_destroy: bool = False,
        enable_shrink: bool = False,
        comm: Any = None,
    ):
        _no_such("low_latency_mode", low_latency_mode, "low-latency kernels need a GPU")
        _no_such("num_qps_per_rank", num_qps_per_rank, "there is no NVSHMEM")
        _no_such("allow_mnnvl", allow_mnnvl, "there is no NVLink")
        _no_such("use_fabric", use_fabric, "there is no NVLink")
        _no_such("enable_shrink", enable_shrink, "ranks cannot leave")
        given = comm if group is None else group
        self.fabric = Fabric.of(given)
        self.group = given
        self.rank = self.fabric.rank
        self.group_size = self.fabric.rank_count
        self.num_nvl_bytes = num_nvl_bytes
        self.num_rdma_bytes = num_rdma_bytes
        self.low_latency_mode = False
        self.explicitly_destroy = explicitly_destroy
        self._exchanges: Dict[Tuple[int, str], Exchange] = {}
        self._handles = 0

    def destroy(self) -> None:
        """Gives the memory back."""
        self._exchanges.clear()

    @staticmethod
    def is_sm90_compiled() -> bool:
        """Whether there are kernels for Hopper: no."""
        return False

    @staticmethod
    def set_num_sms(new_num_sms: int) -> None:
        """Without effect."""
        Buffer.num_sms = new_num_sms

    @staticmethod
    def capture() -> EventOverlap:
        """An event that has happened."""
        return EventOverlap()

    @staticmethod
    def get_dispatch_config(num_ranks: int) -> Config:
        """Any: none has an effect."""
        return Config(Buffer.num_sms)

    get_combine_config = get_dispatch_config

    def get_dispatch_layout(
        self,
        topk_idx: torch.Tensor,
        num_experts: int,
        previous_event: Optional[EventOverlap] = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> Tuple[torch.Tensor, None, torch.Tensor, torch.Tensor, EventOverlap]:
        """How many tokens go where. Not collective: what is wrong is an error on this rank alone.

        :param topk_idx: ``(T, K)`` int64; -1: no expert.
        :returns: ``num_tokens_per_rank`` ``(ranks,)`` int32, ``None``, ``num_tokens_per_expert`` ``(num_experts,)`` int32,
            ``is_token_in_rank`` ``(T, ranks)`` bool, and an event.
        """
        _has_happened(previous_event)
        try:
            self._check_experts(num_experts)
            _check_indices(topk_idx, num_experts)
        except Refusal as refusal:
            raise refusal.alone("get_dispatch_layout", self.rank) from None
        chosen = topk_idx >= 0
        # Choices that are none go to a column that is cut off.
        ranks = torch.where(chosen, topk_idx.div(num_experts // self.group_size, rounding_mode="floor"), self.group_size)
        is_token_in_rank = torch.zeros(len(topk_idx), self.group_size + 1, dtype=torch.bool).scatter_(1, ranks, True)
        is_token_in_rank = is_token_in_rank[:, :-1].contiguous()
        per_expert = topk_idx[chosen].bincount(minlength=num_experts).int()
        return is_token_in_rank.sum(0, dtype=torch.int32), None, per_expert, is_token_in_rank, EventOverlap()

    def dispatch(
        self,
        x: torch.Tensor,
        handle: Optional[Handle] = None,
        num_tokens_per_rank: Optional[torch.Tensor] = None,
        num_tokens_per_rdma_rank: Optional[torch.Tensor] = None,
        is_token_in_rank: Optional[torch.Tensor] = None,
        num_tokens_per_expert: Optional[torch.Tensor] = None,
        topk_idx: Optional[torch.Tensor] = None,
        topk_weights: Optional[torch.Tensor] = None,
        expert_alignment: int = 1,
        num_worst_tokens: int = 0,
        config: Optional[Config] = None,
        previous_event: Optional[EventOverlap] = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> Tuple[
        torch.Tensor, Optional[torch.Tensor], Optional[torch.Tensor], Optional[List[int]], Optional[Handle], EventOverlap
    ]:
        """Sends each token once to every rank of ``is_token_in_rank``. Collective.

        :param x: ``(T, hidden)`` float32 or bfloat16; copied if it is not contiguous.
        :param handle: of an earlier dispatch: the tokens take the same way. It takes the place of all that
            :meth:`get_dispatch_layout` returns, of ``topk_idx`` and of ``topk_weights``.
        :param topk_idx: ``(T, K)`` int64, with ``topk_weights`` ``(T, K)`` float32: they travel with the tokens.
        :param expert_alignment: what the returned counts are rounded up to a multiple of.
        :returns: ``recv_x`` by source rank, then by token; ``recv_topk_idx``: numbers of this rank's experts from 0, else
            -1; ``recv_topk_weights``: 0 there; tokens of each expert of this rank; a handle; an event. With a handle all
            but ``recv_x`` and the event are ``None``.
        """
        if isinstance(x, tuple):
            raise NotImplementedError("x: a tuple of fp8 values and scales: only float32 and bfloat16 tensors travel")
        _no_such("num_worst_tokens", num_worst_tokens, "there are no CUDA graphs: as many rows are returned as arrive")
        _no_such("num_tokens_per_rdma_rank", num_tokens_per_rdma_rank, "there are no RDMA ranks")
        _has_happened(previous_event)
        refusal = None
        facts = dict(_FACTS)
        try:
            facts.update(_facts(x, "x"))
            if handle is None:
                facts.update(self._check_layout(x, num_tokens_per_rank, is_token_in_rank, num_tokens_per_expert))
                facts.update(self._check_choices(x, topk_idx, topk_weights, num_tokens_per_expert))
            else:
                _check_cached(x, handle, topk_idx, topk_weights)
                facts.update(call=_CALLS.index("dispatch with a handle"), handle=handle.number)
        except Refusal as caught:
            refusal = caught
        agree(self.fabric, "dispatch", facts, refusal, _WORDS)

        if handle is not None:
            return self._send(handle, x), None, None, None, None, EventOverlap()
        self._handles = (self._handles + 1) % _HANDLES
        handle = Handle(self._handles, is_token_in_rank.numpy())
        recv_x = self._send(handle, x)
        handle.num_recv_tokens = len(recv_x)
        counts = num_tokens_per_expert.numpy().astype(np.float32)
        self.fabric.allreduce(counts)
        local = len(counts) // self.group_size
        mine = counts[self.rank * local : (self.rank + 1) * local].astype(int)
        aligned = (-(-mine // expert_alignment) * expert_alignment).tolist()
        chosen = self._send_choices(handle, topk_idx, topk_weights, local) if topk_idx is not None else (None, None)
        return recv_x, *chosen, aligned, handle, EventOverlap()

    def combine(
        self,
        x: torch.Tensor,
        handle: Handle,
        topk_weights: Optional[torch.Tensor] = None,
        bias: Union[torch.Tensor, Sequence[torch.Tensor], None] = None,
        config: Optional[Config] = None,
        previous_event: Optional[EventOverlap] = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor], EventOverlap]:
        """Sends received rows back, where those of a token are summed, without weights. Collective.

        :param x: ``(num_recv_tokens, hidden)``, in the order of ``recv_x``.
        :param topk_weights: ``(num_recv_tokens, K)`` float32: summed as the rows are.
        :param bias: one or two tensors as the result, which are added to it.
        :returns: ``combined_x`` ``(T, hidden)``, ``combined_topk_weights`` ``(T, K)`` or ``None``, an event.
        """
        _has_happened(previous_event)
        refusal = None
        facts = dict(_FACTS)
        biases = [bias] if isinstance(bias, torch.Tensor) else list(bias or ())
        try:
            facts.update(_facts(x, "x"))
            _check_handle(handle)
            facts.update(handle=handle.number)
            rows = handle.num_recv_tokens
            if len(x) != rows:
                raise Refusal("x", f"{_describe(x)}; {rows} rows were received")
            if topk_weights is not None:
                choices = topk_weights.shape[1] if _has_two_dimensions(topk_weights) else 0
                _check_tensor(topk_weights, "topk_weights", torch.float32, (rows, choices))
                facts.update(choices=choices)
            for term in biases:
                expected = (len(handle.experts), x.shape[1])
                if not isinstance(term, torch.Tensor) or tuple(term.shape) != expected or term.dtype != x.dtype:
                    raise Refusal("bias", f"{_describe(term)}; {x.dtype} of shape {expected} is expected")
        except Refusal as caught:
            refusal = caught
        agree(self.fabric, "combine", facts, refusal, _WORDS)

        combined = torch.from_numpy(handle.sum(self._exchange(x.shape[1], x.dtype), _rows(x)))
        for term in biases:
            combined += term
        combined_weights = None
        if topk_weights is not None:
            # In the rows of what dispatch sent with the tokens: indices, then weights.
            rows = torch.cat([torch.zeros_like(topk_weights), topk_weights.detach()], dim=1)
            exchange = self._exchange(rows.shape[1], torch.float32)
            combined_weights = torch.from_numpy(handle.sum(exchange, rows.numpy())[:, topk_weights.shape[1] :].copy())
        return combined.to(x.dtype), combined_weights, EventOverlap()

    def _exchange(self, hidden: int, dtype: torch.dtype) -> Exchange:
        """Rows go to ranks: each rank is one expert. Made by all ranks at their first call for such rows."""
        key = hidden, _OPTIONS[dtype]
        if key not in self._exchanges:
            self._exchanges[key] = Exchange(self.fabric, experts=self.group_size, hidden=hidden, options=key[1])
        return self._exchanges[key]

    def _send(self, handle: Handle, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(handle.send(self._exchange(x.shape[1], x.dtype), _rows(x))).to(x.dtype)

    def _send_choices(self, handle, topk_idx, topk_weights, local):
        """Indices and weights as float32, which holds numbers of experts."""
        width = topk_idx.shape[1]
        rows = torch.cat([topk_idx.float(), topk_weights.detach()], dim=1)
        received = torch.from_numpy(handle.send(self._exchange(2 * width, torch.float32), rows.numpy()))
        indices = received[:, :width].long() - self.rank * local
        is_mine = (indices >= 0) & (indices < local)
        return indices.masked_fill_(~is_mine, -1), received[:, width:].masked_fill(~is_mine, 0)

    def _check_experts(self, experts: int) -> None:
        if not isinstance(experts, int) or experts <= 0 or experts % self.group_size:
            raise Refusal("num_experts", f"{experts}; a multiple of the {self.group_size} ranks is expected")

    def _check_layout(self, x, num_tokens_per_rank, is_token_in_rank, num_tokens_per_expert):
        _check_tensor(is_token_in_rank, "is_token_in_rank", torch.bool, (len(x), self.group_size))
        _check_tensor(num_tokens_per_rank, "num_tokens_per_rank", torch.int32, (self.group_size,))
        counted = is_token_in_rank.sum(0)
        if not torch.equal(num_tokens_per_rank, counted.int()):
            message = f"{num_tokens_per_rank.tolist()}; is_token_in_rank has {counted.tolist()}"
            raise Refusal("num_tokens_per_rank", message)
        experts = len(num_tokens_per_expert) if isinstance(num_tokens_per_expert, torch.Tensor) else 0
        _check_tensor(num_tokens_per_expert, "num_tokens_per_expert", torch.int32, (experts,))
        self._check_experts(experts)
        return dict(call=_CALLS.index("dispatch"), experts=experts)

    def _check_choices(self, x, topk_idx, topk_weights, num_tokens_per_expert):
        if topk_idx is None and topk_weights is None:
            return {}
        _check_indices(topk_idx, len(num_tokens_per_expert))
        if len(topk_idx) != len(x):
            raise Refusal("topk_idx", f"{_describe(topk_idx)}; {len(x)} tokens are sent")
        _check_tensor(topk_weights, "topk_weights", torch.float32, tuple(topk_idx.shape))
        return dict(choices=topk_idx.shape[1])


def _absent(name: str, reason: str) -> Any:
    def method(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"Buffer.{name}: {reason}")

    return method


for _name in ("dispatch", "combine"):
    _name = f"low_latency_{_name}"
    setattr(Buffer, _name, _absent(_name, "low-latency kernels need a GPU; use dispatch and combine"))
for _name in ("clean_low_latency_buffer", "get_next_low_latency_combine_buffer", "get_low_latency_rdma_size_hint"):
    setattr(Buffer, _name, _absent(_name, "low-latency kernels need a GPU"))
for _name in ("get_comm_stream", "get_local_buffer_tensor"):
    setattr(Buffer, _name, _absent(_name, "there is no CUDA stream and no registered memory"))


def _no_such(name: str, value: Any, reason: str) -> None:
    if value not in (None, False, 0):
        raise NotImplementedError(f"{name}={value}: {reason}")


def _has_happened(event: Any) -> None:
    if event is not None and not isinstance(event, EventOverlap):
        raise NotImplementedError(f"previous_event: {type(event).__name__}: there are no CUDA events")


def _facts(x: Any, argument: str) -> Dict[str, int]:
    if not _has_two_dimensions(x) or x.dtype not in _DTYPES or x.device.type != "cpu":
        raise Refusal(argument, f"{_describe(x)}; float32 or bfloat16 of shape (tokens, hidden) on the CPU is expected")
    return dict(hidden=x.shape[1], dtype=_DTYPES.index(x.dtype))


def _has_two_dimensions(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 2


def _check_tensor(value: Any, argument: str, dtype: torch.dtype, shape: Tuple[int, ...]) -> None:
    if not isinstance(value, torch.Tensor) or value.dtype != dtype or tuple(value.shape) != shape:
        raise Refusal(argument, f"{_describe(value)}; {dtype} of shape {shape} is expected")


def _check_indices(topk_idx: Any, experts: int) -> None:
    if not _has_two_dimensions(topk_idx) or topk_idx.dtype != torch.int64:
        raise Refusal("topk_idx", f"{_describe(topk_idx)}; torch.int64 of shape (tokens, choices) is expected")
    if topk_idx.numel() and not -1 <= topk_idx.min() <= topk_idx.max() < experts:
        raise Refusal("topk_idx", f"numbers from {topk_idx.min()} to {topk_idx.max()}; there are {experts} experts")


def _check_handle(handle: Any) -> None:
    if not isinstance(handle, Handle):
        raise Refusal("handle", f"{_describe(handle)}; the handle of a dispatch is expected")


def _check_cached(x: torch.Tensor, handle: Any, topk_idx: Any, topk_weights: Any) -> None:
    _check_handle(handle)
    if topk_idx is not None or topk_weights is not None:
        raise Refusal("topk_idx", "given with a handle, which has its own")
    if len(x) != len(handle.experts):
        raise Refusal("x", f"{_describe(x)}; the handle is one of {len(handle.experts)} tokens")


def _rows(x: torch.Tensor) -> np.ndarray:
    return x.detach().float().contiguous().numpy()
