"""Rows in bf16: every transfer gives what it gives for floats of the same values, rounded once."""

import numpy as np
import pytest
from conftest import Problem

from crosspoint import Code, CrosspointError, Exchange, simulate


def rounded(x):
    """The bits of the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def check_transfers(fabric, options):
    """On one to three ranks."""
    problem = Problem(fabric.rank, [7, 0, 12][fabric.rank], hidden=21)
    wide = Exchange(fabric, experts=6, hidden=21, options=options)
    narrow = Exchange(fabric, experts=6, hidden=21, options=",".join(filter(None, ["rows=bf16", options])))
    assert narrow.dtype == np.uint16 and wide.dtype == np.float32
    random = np.random.default_rng(fabric.rank)

    def expect_same(few, many):
        assert few.dtype == np.uint16 and np.array_equal(few, rounded(many))

    x, dy = rounded(problem.x), rounded(problem.dy)
    few = narrow.dispatch(x, problem.experts, problem.weights)
    many = wide.dispatch(widened(x), problem.experts, problem.weights)
    expect_same(few.rows, many.rows)
    outputs, dx = (rounded(random.standard_normal(few.rows.shape, np.float32)) for _ in range(2))
    few.outputs()[:] = outputs
    # With gaps between rows.
    y = np.full((len(x), 30), 7, np.uint16)
    narrow.combine(few, out=y[:, :21])
    expect_same(y[:, :21], wide.combine(many, widened(outputs)))
    assert (y[:, 21:] == 7).all()
    expect_same(narrow.combine_backward(few, dy), wide.combine_backward(many, widened(dy)))
    assert np.array_equal(few.weight_gradients(), many.weight_gradients())
    expect_same(narrow.dispatch_backward(few, dx), wide.dispatch_backward(many, widened(dx)))


@pytest.mark.parametrize("ranks_per_node", [1, 3])
@pytest.mark.parametrize("options", ["", "wire=fp8", "wire=rotated:4"])
def test_every_transfer_gives_the_rounded_bits_of_floats(options, ranks_per_node):
    simulate(3, lambda fabric: check_transfers(fabric, options), ranks_per_node=ranks_per_node)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_transfer_gives_them_under_mpi_in_shared_memory_and_in_messages(launch, ranks):
    code, output, errors = launch(ranks, "bfloat16").wait()
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {rank}: 6" for rank in range(ranks)], errors


def test_rows_of_another_type_are_named_on_all_ranks():
    def body(fabric):
        for options, wrong, mentions in (
            ("rows=bf16", np.float32, "float32 of shape (4, 8); a numpy array of bfloat16, or its bits as uint16,"),
            ("", np.uint16, "uint16 of shape (4, 8); a numpy array of float32"),
        ):
            exchange = Exchange(fabric, experts=6, hidden=8, options=options)
            tokens = np.zeros((4, 8), wrong if fabric.rank == 1 else exchange.dtype)
            with pytest.raises(CrosspointError) as caught:
                exchange.dispatch(tokens, np.zeros((4, 2), np.int32), np.zeros((4, 2), np.float32))
            error = caught.value
            assert error.code == Code.INVALID_ARGUMENT and error.argument == "tokens" and mentions in error.message, error
            assert error.rank == 1 and error.is_agreed
        with pytest.raises(CrosspointError, match="bf16 rows need copies expert, not rank"):
            Exchange(fabric, experts=6, hidden=8, options="rows=bf16,copies=rank")

    simulate(2, body)
