"""A token dispatcher for Megatron-Core: `use_crosspoint(model)` gives it to all layers of experts.

It takes the place of ``MoEAllGatherTokenDispatcher`` and its like, on the CPU, for processes that mpirun started.
docs/torch.md shows how.
"""

import types
from typing import Any, List, Optional, Tuple

import torch
from megatron.core.transformer.moe.token_dispatcher import MoETokenDispatcher

from ._exchange import Exchange
from ._process_group import shared_fabric
from .torch import Dispatched, _options, _rows, _widened, combine, dispatch

__all__ = ["CrosspointTokenDispatcher", "use_crosspoint"]

# What Megatron's dispatchers do, and this one does not.
_REFUSED = ("moe_apply_probs_on_input", "moe_pad_expert_input_to_capacity", "moe_shared_expert_overlap")


class CrosspointTokenDispatcher(MoETokenDispatcher):
    """Sends rows by :class:`crosspoint.Exchange`.

    Probabilities stay at home: experts get ones, and outputs are weighted where they are summed, in float32, on the token's
    rank. Rows of float32, and of bfloat16 where ``options`` are empty or have ``rows=bf16``, travel as they lie. Others are
    widened before and narrowed after.

    :param options: as of :class:`crosspoint.Exchange`, for example ``"wire=bf16"``.
    """

    def __init__(
        self,
        num_local_experts: int,
        local_expert_indices: List[int],
        config: Any,
        pg_collection: Any = None,
        options: str = "",
        layer: int = 0,
    ):
        super().__init__(config=config, pg_collection=pg_collection)
        for setting in _REFUSED:
            if getattr(config, setting, False):
                raise NotImplementedError(f"{setting}: not there in Crosspoint")
        split = getattr(config, "expert_tensor_parallel_size", None) or 1
        if split > 1:
            raise NotImplementedError(f"expert_tensor_parallel_size: {split}: an expert is on one rank")
        self.fabric = shared_fabric(self.ep_group)
        first = self.fabric.rank * num_local_experts
        if list(local_expert_indices) != list(range(first, first + num_local_experts)):
            raise ValueError(f"local_expert_indices: {local_expert_indices}: {num_local_experts} from {first} on are expected")
        self.options, self.layer = options, layer
        self.exchange: Optional[Exchange] = None
        self._sent: Optional[Dispatched] = None

    def dispatch_preprocess(
        self, tokens: torch.Tensor, routing_map: torch.Tensor, probs: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Rows of tokens, and the probabilities of their experts, ``(T, K)``."""
        self._shape = tokens.shape
        # A token's experts by number; a token that has fewer than K is sent to no other.
        experts = (~routing_map).byte().argsort(dim=1, stable=True)[:, : self.config.moe_router_topk]
        self._experts = experts.where(routing_map.gather(1, experts), -1)
        return tokens.reshape(-1, tokens.shape[-1]), probs.gather(1, experts)

    def token_dispatch(self, hidden_states: torch.Tensor, probs: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Rows for this rank's experts, grouped by expert. Collective."""
        if self.exchange is None:
            experts, hidden = self.config.num_moe_experts, hidden_states.shape[-1]
            options = _options(self.options, hidden_states)
            self.exchange = Exchange(self.fabric, experts=experts, hidden=hidden, options=options, layer=self.layer)
        self._sent = dispatch(self.exchange, _rows(self.exchange, hidden_states), self._experts, _widened(probs))
        return self._sent.rows.to(hidden_states.dtype), probs

    def dispatch_postprocess(
        self, hidden_states: torch.Tensor, probs: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The rows, how many each expert has, and ones for their probabilities."""
        counts = torch.tensor(self._sent.rows_per_expert)
        return hidden_states, counts, torch.ones(len(hidden_states), dtype=probs.dtype)

    def combine_preprocess(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states

    def token_combine(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The sum of each token's outputs by its probabilities. Collective."""
        sent, self._sent = self._sent, None
        return combine(sent, _rows(self.exchange, hidden_states)).to(hidden_states.dtype)

    def combine_postprocess(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states.reshape(self._shape)


def use_crosspoint(model: torch.nn.Module, options: str = "") -> int:
    """From now on all layers of experts in a model send their tokens by Crosspoint. Collective over their groups.

    :param options: as of :class:`crosspoint.Exchange`.
    :returns: how many layers these are.
    """
    layers = [module for module in model.modules() if isinstance(getattr(module, "token_dispatcher", None), MoETokenDispatcher)]
    for number, layer in enumerate(layers):
        before = layer.token_dispatcher
        groups = types.SimpleNamespace(ep=before.ep_group, expt_tp=before.tp_group, tp_ep=before.tp_ep_group)
        layer.token_dispatcher = CrosspointTokenDispatcher(
            layer.num_local_experts, layer.local_expert_indices, layer.config, groups, options, number
        )
    return len(layers)
