"""The dispatcher for Megatron-Core, against the gathered model and, where Megatron-Core is installed, against its own all-gather
dispatcher in its own layer. Elsewhere the class that the dispatcher extends is stood in for."""

import importlib.util
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import resident_bytes  # noqa: E402
from test_torch import EXPERTS, HIDDEN, TOP_K, expert, gathered, route, tokens_of  # noqa: E402

from crosspoint import simulate  # noqa: E402

is_installed = importlib.util.find_spec("megatron") is not None

if not is_installed:

    class MoETokenDispatcher:
        def __init__(self, config, pg_collection=None):
            self.config = config
            self.ep_group, self.tp_group, self.tp_ep_group = pg_collection.ep, pg_collection.expt_tp, pg_collection.tp_ep

    name = "megatron"
    for part in ("", "core", "transformer", "moe", "token_dispatcher"):
        name = f"{name}.{part}".rstrip(".")
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules[name].MoETokenDispatcher = MoETokenDispatcher

from crosspoint.megatron import CrosspointTokenDispatcher, MoETokenDispatcher, use_crosspoint  # noqa: E402


class Layer(torch.nn.Module):
    """What MoELayer of Megatron-Core does, with experts that multiply by their probability."""

    def __init__(self, fabric, **settings):
        super().__init__()
        self.config = types.SimpleNamespace(num_moe_experts=EXPERTS, moe_router_topk=TOP_K, **settings)
        self.num_local_experts = EXPERTS // fabric.rank_count
        first = fabric.rank * self.num_local_experts
        self.local_expert_indices = list(range(first, first + self.num_local_experts))
        self.experts = torch.nn.ModuleList(expert(number) for number in self.local_expert_indices)
        groups = types.SimpleNamespace(ep=fabric, expt_tp=None, tp_ep=fabric)
        self.token_dispatcher = MoETokenDispatcher(self.config, groups)

    def send(self, hidden, logits):
        chosen, weights = route(logits)
        probs = torch.zeros_like(logits).scatter(1, chosen, weights)
        routing_map = torch.zeros_like(logits, dtype=torch.bool).scatter(1, chosen, True)
        dispatcher = self.token_dispatcher
        rows, probs = dispatcher.dispatch_preprocess(hidden, routing_map, probs)
        rows, probs = dispatcher.token_dispatch(rows, probs)
        return dispatcher.dispatch_postprocess(rows, probs)

    def bring(self, outputs):
        dispatcher = self.token_dispatcher
        outputs = dispatcher.token_combine(dispatcher.combine_preprocess(outputs))
        return dispatcher.combine_postprocess(outputs)

    def forward(self, hidden, logits):
        rows, counts, probs = self.send(hidden, logits)
        assert rows.dtype == hidden.dtype and counts.sum() == len(rows) == len(probs) and counts.dtype == torch.int64
        pieces = zip(self.experts, rows.split(counts.tolist()), probs.split(counts.tolist()))
        return self.bring(torch.cat([(module(piece) * scale[:, None]).to(rows.dtype) for module, piece, scale in pieces]))


def layer(fabric, options="", **settings):
    made = Layer(fabric, **settings)
    assert use_crosspoint(torch.nn.ModuleList([torch.nn.Identity(), made]), options) == 1
    return made


def transfers(fabric):
    """What sends tokens by their scores, and what brings rows home."""
    made = layer(fabric)
    return (lambda x, logits: made.send(x, logits)[0]), made.bring


def check_layer(fabric, counts):
    """What a rank's layer gives is the gathered model's share."""
    y_all, dx_all, dlogits_all, parameters = gathered(counts)
    close = dict(rtol=1e-4, atol=1e-5)
    made = layer(fabric)
    x, logits, dy = tokens_of(fabric.rank, counts[fabric.rank])
    y = made(x[:, None], logits)
    assert y.shape == (len(x), 1, HIDDEN)
    y.backward(dy[:, None])
    torch.testing.assert_close(y[:, 0], y_all[fabric.rank], **close)
    torch.testing.assert_close(x.grad, dx_all[fabric.rank], **close)
    torch.testing.assert_close(logits.grad, dlogits_all[fabric.rank], **close)
    for number, module in zip(made.local_expert_indices, made.experts):
        for parameter, expected in zip(module.parameters(), parameters[number]):
            torch.testing.assert_close(parameter.grad, expected, **close)


@pytest.mark.parametrize("counts", [[9], [5, 12], [7, 0, 20]])
def test_a_layer_is_the_gathered_models(counts):
    simulate(len(counts), lambda fabric: check_layer(fabric, counts), deadline=20)


def test_a_token_that_a_capacity_drops_goes_nowhere():
    def body(fabric):
        made = layer(fabric).token_dispatcher
        x = torch.ones(3, HIDDEN, requires_grad=True)
        routing_map = torch.zeros(3, EXPERTS, dtype=torch.bool)
        routing_map[0, [1, 4]] = routing_map[1, 4] = True
        probs = torch.full((3, EXPERTS), 0.25, requires_grad=True)
        rows, counts, _ = made.dispatch_postprocess(
            *made.token_dispatch(*made.dispatch_preprocess(x, routing_map, probs))
        )
        assert counts.tolist() == ([0, 2, 0] if fabric.rank == 0 else [0, 4, 0])
        y = made.combine_postprocess(made.token_combine(rows))
        assert y[:, 0].tolist() == [0.5, 0.25, 0]
        y.sum().backward()
        assert torch.equal(probs.grad != 0, routing_map) and x.grad[:, 0].tolist() == [0.5, 0.25, 0]

    simulate(2, body)


@pytest.mark.parametrize("options, rows", [("", np.uint16), ("wire=bf16", np.float32)])
def test_bf16_travels_as_it_lies_or_is_widened(options, rows):
    def body(fabric):
        x, logits, _ = tokens_of(fabric.rank, 6)
        x = x.detach().bfloat16().requires_grad_()
        made = layer(fabric, options).bfloat16()
        y = made(x, logits)
        assert made.token_dispatcher.exchange.dtype == rows
        y.sum().backward()
        assert y.dtype == x.grad.dtype == torch.bfloat16

    simulate(2, body)


def test_what_cannot_be_is_refused_by_name():
    def body(fabric):
        for setting in ("moe_apply_probs_on_input", "moe_pad_expert_input_to_capacity", "moe_shared_expert_overlap"):
            with pytest.raises(NotImplementedError, match=setting):
                layer(fabric, **{setting: True})
        with pytest.raises(NotImplementedError, match="expert_tensor_parallel_size: 2"):
            layer(fabric, expert_tensor_parallel_size=2)
        with pytest.raises(ValueError, match=r"local_expert_indices: \[0, 2\]: 2 from"):
            groups = types.SimpleNamespace(ep=fabric, expt_tp=None, tp_ep=fabric)
            CrosspointTokenDispatcher(2, [0, 2], Layer(fabric).config, groups)

    simulate(2, body)


def test_steps_leave_nothing_behind():
    def body(fabric):
        made = layer(fabric)
        x, logits, dy = tokens_of(fabric.rank, 40)
        before = 0
        for number in range(1000):
            if number == 300:
                before = resident_bytes()
            made(x, logits).backward(dy)
        return resident_bytes() - before

    assert max(simulate(2, body)) < 4 << 20


@pytest.mark.skipif(not is_installed, reason="Megatron-Core is not installed")
def test_megatrons_layer_gives_what_it_gives_with_its_own_dispatcher(launch):
    code, output, errors = launch(2, "megatron").wait(120)
    assert code == 0 and sorted(output.split("\n")[:-1]) == ["rank 0: True", "rank 1: True"], errors
