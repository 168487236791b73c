"""Transfers that autograd knows, against PyTorch's own result on the gathered model: every expert and all ranks' tokens."""

import gc
import socket
import subprocess
import sys
import weakref

import pytest

torch = pytest.importorskip("torch")

from conftest import resident_bytes, root  # noqa: E402

from crosspoint import CrosspointError, Exchange, simulate  # noqa: E402
from crosspoint.torch import ExpertParallel, begin_combine, begin_dispatch, combine, dispatch  # noqa: E402

HIDDEN, EXPERTS, TOP_K = 16, 6, 2
torch.set_num_threads(1)


def expert(number):
    """The same for a number, wherever it is made."""
    generator = torch.Generator().manual_seed(number)
    layers = torch.nn.Sequential(torch.nn.Linear(HIDDEN, 24), torch.nn.GELU(), torch.nn.Linear(24, HIDDEN))
    for parameter in layers.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return layers


def tokens_of(rank, count):
    """Tokens, scores of the router, and gradients of a rank."""
    generator = torch.Generator().manual_seed(100 + rank)
    x = torch.randn(count, HIDDEN, generator=generator, requires_grad=True)
    logits = torch.randn(count, EXPERTS, generator=generator, requires_grad=True)
    return x, logits, torch.randn(count, HIDDEN, generator=generator)


def route(logits):
    weights, experts = logits.softmax(dim=1).topk(TOP_K)
    return experts, weights


def gathered(counts):
    """Outputs, and gradients of tokens, scores and parameters, of one model on one rank."""
    experts = [expert(number) for number in range(EXPERTS)]
    parts = [tokens_of(rank, count) for rank, count in enumerate(counts)]
    x, logits, dy = (torch.cat([part[i] for part in parts]).detach() for i in range(3))
    x.requires_grad_()
    logits.requires_grad_()
    chosen, weights = route(logits)
    y = torch.zeros_like(x)
    for number, module in enumerate(experts):
        token, choice = (chosen == number).nonzero(as_tuple=True)
        y = y.index_add(0, token, weights[token, choice, None] * module(x[token]))
    y.backward(dy)
    gradients = [[p.grad for p in module.parameters()] for module in experts]
    return y.detach().split(counts), x.grad.split(counts), logits.grad.split(counts), gradients


def check_layer(fabric, counts, options=""):
    """What a rank's layer gives is the gathered model's share."""
    y_all, dx_all, dlogits_all, parameters = gathered(counts)
    layer = ExpertParallel(fabric, experts=EXPERTS, hidden=HIDDEN, make=expert, options=options)
    x, logits, dy = tokens_of(fabric.rank, counts[fabric.rank])
    y = layer(x, *route(logits))
    y.backward(dy)
    close = dict(rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y, y_all[fabric.rank], **close)
    torch.testing.assert_close(x.grad, dx_all[fabric.rank], **close)
    torch.testing.assert_close(logits.grad, dlogits_all[fabric.rank], **close)
    for number, module in zip(layer.exchange.local_experts, layer.experts):
        for parameter, expected in zip(module.parameters(), parameters[number]):
            torch.testing.assert_close(parameter.grad, expected, **close)
    return True


def transfers(fabric):
    """What sends tokens by their scores, and what brings rows home."""
    exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
    return (lambda x, logits: dispatch(exchange, x, *route(logits))), lambda sent: combine(sent, sent.rows)


@pytest.mark.parametrize("options", ["", "copies=rank"])
@pytest.mark.parametrize("counts", [[9], [5, 12], [7, 0, 3, 20]])
def test_a_layer_is_the_gathered_models_on_simulated_ranks(counts, options):
    simulate(len(counts), lambda fabric: check_layer(fabric, counts, options))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_layer_is_the_gathered_models_under_mpi(launch, ranks):
    code, output, errors = launch(ranks, "torch_layer").wait(120)
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {r}: True" for r in range(ranks)], errors


def test_rows_arrive_bit_for_bit():
    def body(fabric):
        counts = [8, 5, 11]
        parts = [tokens_of(rank, count) for rank, count in enumerate(counts)]
        x, logits, _ = parts[fabric.rank]
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        dispatched = dispatch(exchange, x, *route(logits))
        expected = []
        for number in exchange.local_experts:
            for tokens, scores, _ in parts:
                expected.append(tokens[(route(scores)[0] == number).nonzero(as_tuple=True)[0]])
        assert torch.equal(dispatched.rows, torch.cat(expected))
        combine(dispatched, dispatched.rows)

    simulate(3, body)


def test_labels_reach_the_exchange():
    options = "wire=entropy:2,memory=16"

    def body(fabric):
        x, logits, _ = tokens_of(fabric.rank, 200)
        labels = torch.arange(200) % 4
        x = x + 10 * torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(1))[labels]
        experts, weights = route(logits.detach())

        def through_torch(labels):
            layer = ExpertParallel(
                fabric, experts=EXPERTS, hidden=HIDDEN, make=lambda number: torch.nn.Identity(), options=options
            )
            for _ in range(4):
                y = layer(x[None], experts[None], weights[None], labels)[0]
                y.backward(x.detach(), retain_graph=True)  # which is a step
            return y

        plain = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN, options=options)
        for _ in range(4):
            given = x.detach().numpy()
            handle = plain.dispatch(given, experts.numpy(), weights.numpy(), labels.numpy())
            expected = torch.from_numpy(plain.combine(handle, handle.rows))
            plain.dispatch_backward(handle, plain.combine_backward(handle, given))
        assert torch.equal(through_torch(labels[None]), expected)
        assert not torch.equal(through_torch(None), expected)

    simulate(3, body)


def test_begun_transfers_have_the_same_bits_and_gradients():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)

        def step(overlaps):
            batches = [tokens_of(fabric.rank + 3 * i, [7, 0, 12][fabric.rank]) for i in range(2)]
            if overlaps:
                begun = [begin_dispatch(exchange, x, *route(logits)) for x, logits, _ in batches]
                dispatched = [pending.wait() for pending in begun]
                begun = [begin_combine(d, 2 * d.rows) for d in dispatched]
                y = [pending.wait() for pending in begun]
            else:
                dispatched = [dispatch(exchange, x, *route(logits)) for x, logits, _ in batches]
                y = [combine(d, 2 * d.rows) for d in dispatched]
            results = []
            for (x, logits, dy), y in zip(batches, y):
                y.backward(dy)
                results += [y.detach(), x.grad, logits.grad]
            return results

        assert all(torch.equal(a, b) for a, b in zip(step(True), step(False)))

    simulate(3, body)


def test_more_ranks_than_experts_and_frozen_experts_do_not_hang():
    def body(fabric):
        layer = ExpertParallel(fabric, experts=2, hidden=HIDDEN, make=expert)
        x = torch.randn(4, HIDDEN, requires_grad=True)
        weights = torch.rand(4, 1, requires_grad=True)
        layer(x, torch.tensor([[0], [1], [0], [-1]]), weights).sum().backward()
        assert (x.grad[3] == 0).all() and (x.grad[0] != 0).any() and weights.grad[3] == 0
        # Outputs that depend on nothing: the backward pass is collective all the same.
        dispatched = dispatch(layer.exchange, x, torch.zeros(4, 1, dtype=torch.int64), weights)
        combine(dispatched, torch.ones(dispatched.rows.shape)).sum().backward()

    simulate(3, body, deadline=10)


@pytest.mark.parametrize("options", ["rows=bf16", "rows=bf16,wire=fp8"])
def test_bfloat16_goes_through_autograd_as_it_is(options):
    """Against float32 of the same values, through one transfer after the other: each result is rounded once."""

    def body(fabric):
        x, logits, dy = tokens_of(fabric.rank, 9 * (fabric.rank % 2))
        experts, weights = route(logits.detach())
        found = []
        for dtype in (torch.bfloat16, torch.float32):
            exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN, options=options[10:] if dtype is torch.float32 else options)
            tokens, w = (t.detach().clone().requires_grad_() for t in (x.bfloat16().to(dtype), weights))
            dispatched = dispatch(exchange, tokens, experts, w)
            assert dispatched.rows.dtype is dtype
            outputs = (found[0][0].to(dtype) if found else dispatched.rows.detach()).requires_grad_()
            y = combine(dispatched, outputs)
            y.backward(dy.bfloat16().to(dtype), inputs=[outputs])
            found.append((dispatched.rows.detach(), y.detach(), outputs.grad, tokens, w, dispatched))
        for narrow, wide in zip(found[0][:3], found[1][:3]):
            assert narrow.dtype is torch.bfloat16 and torch.equal(narrow, wide.bfloat16())
        for (rows, _, gradients, tokens, w, dispatched), first in zip(found, (found[0], found[0])):
            dispatched.rows.backward(first[2].to(rows.dtype))
        assert found[0][3].grad.dtype is torch.bfloat16
        assert torch.equal(found[0][3].grad, found[1][3].grad.bfloat16())
        assert torch.equal(found[0][4].grad, found[1][4].grad)
        layer = ExpertParallel(
            fabric, experts=EXPERTS, hidden=HIDDEN, make=lambda number: expert(number).bfloat16(), options=options
        )
        tokens = x.bfloat16().detach().requires_grad_()
        layer(tokens, experts, weights).sum().backward()
        assert tokens.grad.dtype is torch.bfloat16 and tokens.grad.shape == tokens.shape

    simulate(3, body)


def test_what_is_no_such_tensor_is_refused_on_every_rank():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, logits, _ = tokens_of(fabric.rank, 4)
        experts, weights = route(logits)
        for dtype, mentions in ((torch.bfloat16, "torch.bfloat16 on cpu of shape"), (torch.float64, "float64")):
            with pytest.raises(CrosspointError, match=mentions) as caught:
                dispatch(exchange, x.to(dtype) if fabric.rank == 1 else x, experts, weights)
            assert caught.value.rank == 1 and caught.value.argument == "tokens" and caught.value.is_agreed
        dispatched = dispatch(exchange, x, experts, weights)
        with pytest.raises(CrosspointError, match="list"):
            combine(dispatched, [1] if fabric.rank == 1 else dispatched.rows)
        combine(dispatched, dispatched.rows)

    simulate(2, body)


def test_steps_leave_nothing_behind():
    def body(fabric):
        layer = ExpertParallel(fabric, experts=EXPERTS, hidden=HIDDEN, make=expert)
        x, logits, dy = tokens_of(fabric.rank, 40)
        before = 0
        for number in range(1000):
            if number == 300:
                before = resident_bytes()
            layer(x, *route(logits)).backward(dy)
        growth = resident_bytes() - before
        dispatched = dispatch(layer.exchange, x, *route(logits))
        handle = weakref.ref(dispatched.handle._owned)
        combine(dispatched, dispatched.rows).backward(dy)
        del dispatched
        gc.collect()
        assert handle() is None
        return growth

    assert max(simulate(2, body)) < 4 << 20


def test_a_layers_state_holds_that_of_its_exchange():
    def body(fabric):
        layer = ExpertParallel(fabric, experts=EXPERTS, hidden=HIDDEN, make=expert)
        x, logits, dy = tokens_of(fabric.rank, 4)
        layer(x, *route(logits)).backward(dy)
        other = ExpertParallel(fabric, experts=EXPERTS, hidden=HIDDEN, make=expert)
        other.load_state_dict(layer.state_dict())
        assert other.exchange.save() == layer.exchange.save() and "experts=6" in repr(layer)
        with torch.no_grad():
            batched = layer(x.reshape(2, 2, HIDDEN), *(t.reshape(2, 2, TOP_K) for t in route(logits)))
            assert torch.equal(batched.reshape(4, HIDDEN), layer(x, *route(logits)))

    simulate(2, body)


def test_processes_that_mpirun_has_not_started_are_no_fabric():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, root / "python/tests/rank_program.py", "without_mpirun"]
    started = [subprocess.Popen([*command, str(r), port], stdout=subprocess.PIPE, text=True) for r in range(2)]
    try:
        for process in started:
            output, _ = process.communicate(timeout=60)
            assert "the 2 processes of the group have the ranks [0, 0] of MPI: launch them with mpirun" in output
    finally:
        for process in started:
            process.kill()
