"""The dispatcher for torchtitan, against the gathered model. torchtitan itself is stood in for by the classes that the
dispatcher extends, with their signatures."""

import dataclasses
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import resident_bytes  # noqa: E402
from test_torch import EXPERTS, HIDDEN, TOP_K, expert, gathered, route, tokens_of  # noqa: E402

from crosspoint import simulate  # noqa: E402


def stand_in():
    """torchtitan.models.common.token_dispatcher, as far as it is extended."""

    class LocalTokenDispatcher:
        @dataclasses.dataclass(kw_only=True, slots=True)
        class Config:
            num_experts: int
            top_k: int

        def __init__(self, config):
            self.num_experts, self.top_k = config.num_experts, config.top_k

        def dispatch(self, x_TD, topk_scores_TK, topk_expert_ids_TK, num_local_tokens_per_expert_E):
            order = topk_expert_ids_TK.reshape(-1).argsort(stable=True)
            metadata = order // self.top_k, topk_scores_TK.reshape(-1)[order]
            return x_TD[metadata[0]], num_local_tokens_per_expert_E, metadata

        def combine(
            self, routed_output_RD, metadata, x_TD, *, num_local_tokens_after_padding, local_seq_len_after_padding
        ):
            return torch.zeros_like(x_TD).index_add(0, metadata[0], routed_output_RD * metadata[1][:, None])

    class BaseEPTokenDispatcher(LocalTokenDispatcher):
        @dataclasses.dataclass(kw_only=True, slots=True)
        class Config(LocalTokenDispatcher.Config):
            pass

        def __init__(self, config):
            super().__init__(config)
            self.ep_mesh = None

        def wire_meshes(self, *, ep_mesh, tp_mesh=None):
            self.ep_mesh = ep_mesh
            self.init_buffer()

    module = types.ModuleType("torchtitan.models.common.token_dispatcher")
    module.LocalTokenDispatcher, module.BaseEPTokenDispatcher = LocalTokenDispatcher, BaseEPTokenDispatcher
    return module


for name in ("torchtitan", "torchtitan.models", "torchtitan.models.common"):
    sys.modules.setdefault(name, types.ModuleType(name))
sys.modules.setdefault("torchtitan.models.common.token_dispatcher", stand_in())

from crosspoint.torchtitan import CrosspointTokenDispatcher  # noqa: E402


class Mesh:
    """A DeviceMesh over simulated ranks."""

    def __init__(self, fabric):
        self.fabric = fabric

    def size(self):
        return self.fabric.rank_count

    def get_group(self):
        return self.fabric


def dispatcher(mesh, **options):
    made = CrosspointTokenDispatcher(CrosspointTokenDispatcher.Config(num_experts=EXPERTS, top_k=TOP_K, **options))
    made.wire_meshes(ep_mesh=mesh, tp_mesh=None)
    return made


def transfers(fabric):
    """What sends tokens by their scores, and what brings rows home."""
    made = dispatcher(Mesh(fabric))

    def send(x, logits):
        ids, scores = route(logits)
        rows, _, metadata = made.dispatch(x, scores, ids, ids.reshape(-1).bincount(minlength=EXPERTS))
        return rows, metadata, x

    return send, lambda sent: made.combine(*sent)


def layer(dispatcher, experts, x, logits, pad=0):
    """What RoutedExperts.forward of torchtitan does."""
    ids, scores = route(logits)
    counts = ids.reshape(-1).bincount(minlength=EXPERTS)
    rows, counts, metadata = dispatcher.dispatch(x, scores, ids, counts)
    assert rows.dtype == x.dtype and counts.sum() == len(rows) and counts.dtype == torch.int64
    pieces = [module(piece) for module, piece in zip(experts, rows.split(counts.tolist()))]
    outputs = torch.cat(pieces) if pieces else rows
    count = len(x) + pad
    return dispatcher.combine(
        outputs, metadata, x, num_local_tokens_after_padding=count, local_seq_len_after_padding=count
    )


def check_dispatcher(mesh, rank, counts):
    """What comes out, and all gradients, are the gathered model's share."""
    y_all, dx_all, dlogits_all, parameters = gathered(counts)
    close = dict(rtol=1e-4, atol=1e-5)
    made = dispatcher(mesh)
    other = dispatcher(mesh)
    assert other.fabric is made.fabric and other.layer == made.layer + 1
    local = EXPERTS // len(counts)
    numbers = range(rank * local, (rank + 1) * local)
    experts = [expert(number) for number in numbers]
    x, logits, dy = tokens_of(rank, counts[rank])
    y = layer(made, experts, x, logits)
    y.backward(dy)
    torch.testing.assert_close(y, y_all[rank], **close)
    torch.testing.assert_close(x.grad, dx_all[rank], **close)
    torch.testing.assert_close(logits.grad, dlogits_all[rank], **close)
    for number, module in zip(numbers, experts):
        for parameter, expected in zip(module.parameters(), parameters[number]):
            torch.testing.assert_close(parameter.grad, expected, **close)
    return True


@pytest.mark.parametrize("counts", [[9], [5, 12], [7, 0, 20]])
def test_a_layer_is_the_gathered_models_on_simulated_ranks(counts):
    simulate(len(counts), lambda fabric: check_dispatcher(Mesh(fabric), fabric.rank, counts), deadline=20)


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_layer_is_the_gathered_models_under_mpi_over_meshes_of_torch(launch, ranks):
    code, output, errors = launch(ranks, "torchtitan").wait(120)
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {r}: True" for r in range(ranks)], errors


@pytest.mark.parametrize("options, rows", [("", np.uint16), ("wire=bf16", np.float32), ("rows=bf16", np.uint16)])
def test_bf16_travels_as_it_lies_or_is_widened_and_padding_is_zeros(options, rows):
    def body(fabric):
        x, logits, _ = tokens_of(fabric.rank, 6)
        x = x.detach().bfloat16().requires_grad_()
        made = dispatcher(Mesh(fabric), options=options)
        identity = [torch.nn.Identity()] * (EXPERTS // 2)
        y = layer(made, identity, x, logits, pad=3)
        assert made.exchange.dtype == rows
        assert y.shape == (9, HIDDEN) and y.dtype == torch.bfloat16 and (y[6:] == 0).all()
        y.sum().backward()
        assert x.grad.dtype == torch.bfloat16
        scale = route(logits)[1].sum(dim=1, keepdim=True)
        torch.testing.assert_close(y[:6].float(), (scale * x).detach().float(), rtol=2e-2, atol=2e-2)

    simulate(2, body)


def test_bf16_that_travels_as_it_lies_has_the_bits_of_bf16_that_is_widened():
    def body(fabric):
        results = []
        for options in ("rows=bf16", "wire=fp32"):
            x, logits, dy = tokens_of(fabric.rank, 6)
            x = x.detach().bfloat16().requires_grad_()
            made = dispatcher(Mesh(fabric), options=options)
            experts = [expert(number + fabric.rank * EXPERTS // 2).bfloat16() for number in range(EXPERTS // 2)]
            y = layer(made, experts, x, logits)
            y.backward(dy.bfloat16())
            results.append((y, x.grad, logits.grad))
        assert all(torch.equal(a, b) for a, b in zip(*results))

    simulate(2, body)


def test_without_a_mesh_torchtitans_own_dispatch_serves():
    made = dispatcher(None)
    x, logits, _ = tokens_of(0, 5)
    y = layer(made, [expert(number) for number in range(EXPERTS)], x, logits)
    torch.testing.assert_close(y, gathered([5])[0][0], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused_by_name():
    def body(fabric):
        made = CrosspointTokenDispatcher(CrosspointTokenDispatcher.Config(num_experts=EXPERTS, top_k=TOP_K))
        with pytest.raises(NotImplementedError, match="tp_mesh: a mesh of 2"):
            made.wire_meshes(ep_mesh=Mesh(fabric), tp_mesh=Mesh(fabric))
        odd = CrosspointTokenDispatcher(CrosspointTokenDispatcher.Config(num_experts=5, top_k=TOP_K))
        with pytest.raises(ValueError, match="num_experts: 5 is no multiple of the 2 ranks"):
            odd.wire_meshes(ep_mesh=Mesh(fabric))

    simulate(2, body)


def test_steps_leave_nothing_behind():
    def body(fabric):
        made = dispatcher(Mesh(fabric))
        experts = [expert(number) for number in range(EXPERTS // 2)]
        x, logits, dy = tokens_of(fabric.rank, 40)
        before = 0
        for number in range(1000):
            if number == 300:
                before = resident_bytes()
            layer(made, experts, x, logits).backward(dy)
        return resident_bytes() - before

    assert max(simulate(2, body)) < 4 << 20
