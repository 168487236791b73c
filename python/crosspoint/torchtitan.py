"""A token dispatcher for torchtitan: set it as ``token_dispatcher`` of the experts' configuration.

It takes the place of ``AllToAllTokenDispatcher``, on the CPU, for processes that mpirun started. docs/torch.md shows how.
"""

import itertools
import weakref
from dataclasses import dataclass
from typing import Any, Iterator, Optional, Tuple

import torch
from torchtitan.models.common.token_dispatcher import BaseEPTokenDispatcher, LocalTokenDispatcher

from ._exchange import Exchange
from ._fabric import Fabric
from ._process_group import shared_fabric
from .torch import Dispatched, _options, _rows, _widened, combine, dispatch

__all__ = ["CrosspointTokenDispatcher"]

# The number of the next layer on each fabric.
_layers: "weakref.WeakKeyDictionary[Fabric, Iterator[int]]" = weakref.WeakKeyDictionary()


class CrosspointTokenDispatcher(BaseEPTokenDispatcher):
    """Sends rows by :class:`crosspoint.Exchange`; scores are applied in ``combine``, in float32, on the token's rank.

    Rows of float32, and of bfloat16 where ``options`` are empty or have ``rows=bf16``, travel as they lie. Others are widened
    before and narrowed after.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseEPTokenDispatcher.Config):
        #: As of :class:`crosspoint.Exchange`, for example ``"wire=bf16"``.
        options: str = ""

    def __init__(self, config: Config):
        super().__init__(config)
        self.options = config.options
        self.fabric: Optional[Fabric] = None
        self.exchange: Optional[Exchange] = None

    def wire_meshes(self, *, ep_mesh: Any, **others: Any) -> None:
        """Takes the mesh over which experts are spread; ``None``: they are all here. Collective over it."""
        for name, mesh in others.items():
            if mesh is not None and mesh.size() > 1:
                raise NotImplementedError(f"{name}: a mesh of {mesh.size()}: tokens are split over the data's ranks only")
        super().wire_meshes(ep_mesh=ep_mesh, **others)

    def init_buffer(self) -> None:
        """Called by ``wire_meshes``."""
        if self.ep_mesh is None:
            return
        self.fabric = shared_fabric(self.ep_mesh.get_group())
        self.layer = next(_layers.setdefault(self.fabric, itertools.count()))
        if self.num_experts % self.fabric.rank_count:
            ranks = self.fabric.rank_count
            raise ValueError(f"num_experts: {self.num_experts} is no multiple of the {ranks} ranks of ep_mesh")

    def dispatch(
        self,
        x_TD: torch.Tensor,
        topk_scores_TK: torch.Tensor,
        topk_expert_ids_TK: torch.Tensor,
        num_local_tokens_per_expert_E: torch.Tensor,
    ) -> Tuple[torch.Tensor, torch.Tensor, Any]:
        """Rows for this rank's experts, grouped by expert, how many each has, and what ``combine`` needs. Collective."""
        if self.ep_mesh is None:
            return LocalTokenDispatcher.dispatch(
                self, x_TD, topk_scores_TK, topk_expert_ids_TK, num_local_tokens_per_expert_E
            )
        if self.exchange is None:
            options = _options(self.options, x_TD)
            self.exchange = Exchange(
                self.fabric, experts=self.num_experts, hidden=x_TD.shape[-1], options=options, layer=self.layer
            )
        dispatched = dispatch(self.exchange, _rows(self.exchange, x_TD), topk_expert_ids_TK, _widened(topk_scores_TK))
        counts = torch.tensor(dispatched.rows_per_expert, dtype=num_local_tokens_per_expert_E.dtype)
        return dispatched.rows.to(x_TD.dtype), counts, dispatched

    def combine(
        self,
        routed_output_RD: torch.Tensor,
        metadata: Any,
        x_TD: torch.Tensor,
        *,
        num_local_tokens_after_padding: Optional[int] = None,
        **others: Any,
    ) -> torch.Tensor:
        """The sum of each token's outputs by its scores, and zeros up to ``num_local_tokens_after_padding``. Collective."""
        if not isinstance(metadata, Dispatched):
            if num_local_tokens_after_padding is not None:
                others["num_local_tokens_after_padding"] = num_local_tokens_after_padding
            return LocalTokenDispatcher.combine(self, routed_output_RD, metadata, x_TD, **others)
        out_TD = combine(metadata, _rows(self.exchange, routed_output_RD)).to(x_TD.dtype)
        missing = (num_local_tokens_after_padding or len(out_TD)) - len(out_TD)
        return torch.nn.functional.pad(out_TD, (0, 0, 0, missing)) if missing else out_TD
