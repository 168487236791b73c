"""Transfers that are begun and finished later, on simulated ranks."""

import gc

import numpy as np
import pytest
from conftest import Problem, resident_bytes, scale, step

import crosspoint
from crosspoint import Code, CrosspointError, Exchange, simulate


def overlapped(exchanges, problems):
    """The steps of some micro-batches, all transfers of a kind under way at once."""

    def finish(pending):
        results = [one.finish() for one in pending]
        for one in pending:
            with pytest.raises(CrosspointError, match="it has been finished") as caught:
                one.finish()
            assert caught.value.code == Code.HANDLE_MISUSE
        return results

    pairs = [(exchanges[i % len(exchanges)], problem) for i, problem in enumerate(problems)]
    handles = finish([e.begin_dispatch(p.x, p.experts, p.weights) for e, p in pairs])
    # What is passed in need not be kept.
    y = finish([e.begin_combine(h, scale(e, h, h.rows)) for (e, _), h in zip(pairs, handles)])
    gradients = finish([e.begin_combine_backward(h, p.dy) for (e, p), h in zip(pairs, handles)])
    dx = finish([e.begin_dispatch_backward(h, scale(e, h, g)) for (e, _), h, g in zip(pairs, handles, gradients)])
    return [(y, dx, h.weight_gradients()) for y, dx, h in zip(y, dx, handles)]


@pytest.mark.parametrize("ranks_per_node", [1, 3])
@pytest.mark.parametrize("options", ["", "copies=rank", "wire=bf16,agreement=deferred"])
def test_begun_transfers_have_the_same_bits(options, ranks_per_node):
    def body(fabric):
        exchanges = [Exchange(fabric, experts=6, hidden=16, options=options) for _ in range(2)]
        # One rank has no tokens.
        problems = [Problem(fabric.rank + 3 * i, [7, 0, 12][fabric.rank]) for i in range(4)]
        expected = [step(exchanges[i % 2], problem) for i, problem in enumerate(problems)]
        for found, wanted in zip(overlapped(exchanges, problems), expected):
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted))

    simulate(3, body, ranks_per_node=ranks_per_node)


def test_what_is_wrong_on_one_rank_is_raised_by_finish_on_all():
    def body(fabric):
        problem = Problem(fabric.rank, 5)
        exchange = Exchange(fabric, experts=6, hidden=16)
        x = problem.x.astype(np.float64) if fabric.rank == 1 else problem.x
        pending = exchange.begin_dispatch(x, problem.experts, problem.weights)
        with pytest.raises(CrosspointError, match="float64") as caught:
            pending.finish()
        assert caught.value.rank == 1 and caught.value.is_agreed
        handle = exchange.dispatch(problem.x, problem.experts, problem.weights)
        out = [] if fabric.rank == 2 else None
        with pytest.raises(CrosspointError, match="list"):
            exchange.begin_combine(handle, handle.rows, out=out).finish()
        step(exchange, problem)

    simulate(3, body)


def test_what_is_dropped_is_finished():
    def body(fabric):
        problem = Problem(fabric.rank, 5)
        exchange = Exchange(fabric, experts=6, hidden=16)
        pending = exchange.begin_dispatch(problem.x, problem.experts, problem.weights)
        if fabric.rank == 0:
            del pending
        else:
            pending.finish()
        step(exchange, problem)

    simulate(3, body)


def test_a_thousand_steps_take_no_more_memory():
    def body(fabric):
        exchanges = [Exchange(fabric, experts=6, hidden=16) for _ in range(2)]
        problems = [Problem(fabric.rank + i, 20) for i in range(4)]
        for i in range(1000):
            if i == 200:
                gc.collect()
                before = resident_bytes()
            overlapped(exchanges, problems)
        gc.collect()
        return resident_bytes() - before

    assert max(simulate(2, body)) < 1 << 20
