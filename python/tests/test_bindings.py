"""What holds for bindings alike: input that is not as they want it, two communicators at once, and how jobs end, by an
exception on one rank and by a rank that is killed."""

import importlib
import os
import signal

import pytest

BINDINGS = {"torch": "torch", "deepep": "torch", "torchtitan": "torch", "megatron": "torch", "jax": "jax"}
#: Those whose transfers are functions of autograd.
OF_AUTOGRAD = ("torch", "torchtitan", "megatron")


@pytest.fixture(params=BINDINGS)
def binding(request):
    pytest.importorskip(BINDINGS[request.param])
    return request.param


@pytest.fixture(params=OF_AUTOGRAD)
def of_autograd(request):
    pytest.importorskip("torch")
    return request.param


def transfers_of(binding, fabric):
    """Of a layer whose experts change nothing: what sends tokens by their scores, and what brings rows home."""
    return importlib.import_module(f"test_{binding}").transfers(fabric)


def test_rows_that_are_not_contiguous_are_copied(of_autograd):
    from test_torch import HIDDEN, simulate, tokens_of, torch

    def body(fabric):
        send, bring = transfers_of(of_autograd, fabric)
        x, logits, dy = tokens_of(fabric.rank, 6)

        def step(x, dy):
            x = x.detach().requires_grad_()
            y = bring(send(x, logits))
            y.backward(dy)
            return y, x.grad

        expected = step(x, dy)
        for change in (lambda a: a.T.contiguous().T, lambda a: torch.cat([a, a], dim=1)[:, :HIDDEN]):
            assert not change(x).is_contiguous()
            assert all(torch.equal(a, b) for a, b in zip(step(change(x), change(dy)), expected))

    simulate(2, body)


def test_rows_of_another_type_or_width_on_one_rank_are_named_on_all(of_autograd):
    from test_torch import CrosspointError, simulate, tokens_of

    def body(fabric):
        send, bring = transfers_of(of_autograd, fabric)
        x, logits, _ = tokens_of(fabric.rank, 4)
        bring(send(x, logits))
        for wrong, mentions in ((x.double(), "float64 of shape"), (x[:, :7], "hidden 7, the layout has 16")):
            with pytest.raises(CrosspointError, match=f"rank 1: .*tokens: .*{mentions}") as caught:
                send(wrong if fabric.rank == 1 else x, logits)
            assert caught.value.is_agreed and caught.value.rank == 1 and caught.value.argument == "tokens"
            bring(send(x, logits))

    simulate(2, body)


def test_two_communicators_at_once_keep_apart(launch, of_autograd):
    pytest.importorskip("mpi4py")
    code, output, errors = launch(3, "two_communicators_in", of_autograd).wait(120)
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {r}: True" for r in range(3)], errors


def test_an_exception_on_one_rank_ends_the_job_and_is_shown(launch, binding):
    code, _, errors = launch(2, "raises_in", binding).wait()
    assert code != 0 and errors.count("ValueError: the data are at an end") == 1, errors


def test_a_killed_rank_ends_the_job(launch, binding):
    job = launch(2, "waits_in", binding)
    os.kill(job.rank(1), signal.SIGKILL)
    assert job.wait(30)[0] != 0
