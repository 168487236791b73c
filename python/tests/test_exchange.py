"""The exchange on simulated ranks."""

import gc
import importlib.metadata
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import Problem, resident_bytes, scale, step

import crosspoint
from crosspoint import Code, CrosspointError, Exchange, simulate


@pytest.mark.parametrize("ranks_per_node", [1, 3])
@pytest.mark.parametrize("options", ["", "copies=rank"])
def test_a_step_is_that_of_the_gathered_model(options, ranks_per_node):
    def body(fabric):
        # Unequal, and none on one rank.
        problem = Problem(fabric.rank, [7, 0, 12][fabric.rank])
        exchange = Exchange(fabric, experts=6, hidden=16, options=options)
        for found, expected in zip(step(exchange, problem), problem.oracle()):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    simulate(3, body, ranks_per_node=ranks_per_node)


def test_one_expert_of_weight_one_returns_every_bit():
    def body(fabric):
        problem = Problem(fabric.rank, 50, top_k=1)
        problem.experts[:] = np.arange(50)[:, None] % 6
        problem.weights[:] = 1
        exchange = Exchange(fabric, experts=6, hidden=16)
        handle = exchange.dispatch(problem.x, problem.experts, problem.weights)
        return np.array_equal(exchange.combine(handle, handle.rows).view(np.int32), problem.x.view(np.int32))

    assert simulate(4, body) == [True] * 4


def test_experts_may_write_to_the_handles_memory():
    def body(fabric):
        problem = Problem(fabric.rank, 9)
        exchange = Exchange(fabric, experts=6, hidden=16)
        expected = step(exchange, problem)
        handle = exchange.dispatch(problem.x, problem.experts, problem.weights)
        handle.outputs()[:] = scale(exchange, handle, handle.rows)
        y = np.empty_like(problem.x)
        assert exchange.combine(handle, out=y) is y
        gradients = exchange.combine_backward(handle, problem.dy)
        handle.row_gradients()[:] = scale(exchange, handle, gradients)
        found = y, exchange.dispatch_backward(handle), handle.weight_gradients()
        assert all(np.array_equal(a, b) for a, b in zip(found, expected))

    simulate(2, body)


def test_rows_with_gaps_are_taken():
    def body(fabric):
        problem = Problem(fabric.rank, 9)
        exchange = Exchange(fabric, experts=6, hidden=16)
        expected = step(exchange, problem)
        problem.x, problem.dy = (np.hstack([a, a])[:, :16] for a in (problem.x, problem.dy))
        assert not problem.x.flags.c_contiguous
        assert all(np.array_equal(a, b) for a, b in zip(step(exchange, problem), expected))
        handle = exchange.dispatch(problem.x, problem.experts, problem.weights)
        wide = np.full((9, 20), 7, np.float32)
        exchange.combine(handle, scale(exchange, handle, handle.rows), out=wide[:, :16])
        assert np.array_equal(wide[:, :16], expected[0]) and (wide[:, 16:] == 7).all()

    simulate(2, body)


def labelled(rank):
    """LearnedMemoryTests.swift and checks.c have the same rows."""
    t, j = np.arange(64)[:, None], np.arange(5)
    x = 3 * (t % 4) * (j % 3 - 1) + (37 * t + 101 * j + 17 * rank) % 64 / 64
    experts = (t + np.arange(2) + rank) % 4
    weights = np.tile(np.float32([0.75, 0.25]), (64, 1))
    return x.astype(np.float32), experts, weights, np.arange(64) % 4


def test_labels_give_the_bits_that_they_give_in_swift():
    def body(fabric):
        x, experts, weights, labels = labelled(fabric.rank)
        exchange = Exchange(fabric, experts=4, hidden=5, options="wire=entropy:3,memory=16")
        for begins in 5 * (False, True):
            arguments = x, experts, weights, labels
            handle = exchange.begin_dispatch(*arguments).finish() if begins else exchange.dispatch(*arguments)
            y = exchange.combine(handle, handle.rows)
            exchange.dispatch_backward(handle, exchange.combine_backward(handle, x))
        checksum = 0xCBF29CE484222325
        for byte in y.tobytes():
            checksum = (checksum ^ byte) * 0x100000001B3 % 2**64
        return checksum

    assert simulate(3, body)[0] == 0x2646B63C52031232


def test_labels_lessen_the_error_of_codes():
    def body(fabric):
        problem, labels = Problem(fabric.rank, 200), np.arange(200) % 4
        problem.x += 10 * np.random.default_rng(1).standard_normal((4, 16), np.float32)[labels]

        def error(labels):
            exchange = Exchange(fabric, experts=6, hidden=16, options="wire=entropy:2,memory=16")
            for _ in range(4):
                y = step(exchange, problem, labels)[0]
            return np.square(y - problem.oracle()[0]).sum()

        return error(labels) < error(None)

    assert simulate(3, body) == [True] * 3


@pytest.mark.parametrize(
    "labels, mentions",
    [
        (np.array([0, 1, -2, 3]), "token 2 has label -2; -1 (none) to 16777216 allowed"),
        (np.array([0, 2**24 + 1, 2, 3]), "token 1 has label 16777217"),
        (np.array([0, 2**40, 2, 3]), "numbers from 0 to 1099511627776"),
        (np.zeros(3, np.int32), "int32 of shape (3,); integers of shape (4,)"),
        (np.zeros(4, np.float32), "float32 of shape (4,); integers"),
        ([0, 1, 2, 3], "list; integers"),
    ],
)
def test_wrong_labels_on_one_rank_are_named_on_all(labels, mentions):
    def body(fabric):
        exchange = Exchange(fabric, experts=6, hidden=16, options="wire=entropy:2,memory=4")
        problem = Problem(fabric.rank, 4)
        with pytest.raises(CrosspointError) as caught:
            step(exchange, problem, labels if fabric.rank == 1 else np.arange(4))
        error = caught.value
        assert error.code == Code.INVALID_ARGUMENT and error.argument == "labels" and mentions in error.message, error
        assert error.rank == 1 and error.is_agreed
        # The ranks are in step, also where only one has labels.
        step(exchange, problem, np.arange(4) if fabric.rank == 1 else None)

    simulate(3, body)


WRONG = {
    "float64": (dict(x=np.zeros((4, 8))), "tokens", "float64 of shape (4, 8); a numpy array of float32"),
    "list": (dict(x=[[1.0]]), "tokens", "list; a numpy array of float32"),
    "one dimension": (dict(x=np.zeros(8, np.float32)), "tokens", "float32 of shape (8,)"),
    "hidden": (dict(x=np.zeros((4, 7), np.float32)), "tokens", "hidden 7, the layout has 8"),
    "rows": (dict(x=np.zeros((5, 8), np.float32)), "routing", "4 tokens routed, the batch has 5"),
    "transposed": (dict(x=np.zeros((8, 4), np.float32).T), "tokens", "np.ascontiguousarray(tokens)"),
    "float experts": (dict(experts=np.zeros((4, 2), np.float32)), "experts", "float32 of shape (4, 2); integers"),
    "float64 weights": (dict(weights=np.zeros((4, 2))), "weights", "float64 of shape (4, 2); float32 of shape (4, 2)"),
    "few weights": (dict(weights=np.zeros((4, 1), np.float32)), "weights", "float32 of shape (4, 1)"),
    "no such expert": (dict(experts=np.full((4, 2), 6)), "topkIndices", "token 0 names expert 6 of 6"),
    "huge expert": (dict(experts=np.full((4, 2), 2**40)), "experts", "1099511627776"),
    "nan": (dict(x=np.full((4, 8), np.nan, np.float32)), "tokens", "row 0, column 0 is nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_on_one_rank_is_named_on_all(name):
    changes, argument, mentions = WRONG[name]

    def body(fabric):
        exchange = Exchange(fabric, experts=6, hidden=8)
        good = dict(
            x=np.zeros((4, 8), np.float32), experts=np.zeros((4, 2), np.int32), weights=np.zeros((4, 2), np.float32)
        )
        given = {**good, **changes} if fabric.rank == 1 else good
        with pytest.raises(CrosspointError) as caught:
            exchange.dispatch(given["x"], given["experts"], given["weights"])
        error = caught.value
        assert error.argument == argument and mentions in error.message, error
        assert error.rank == 1 and error.is_agreed
        assert error.code == (Code.NON_FINITE if name == "nan" else Code.INVALID_ARGUMENT)
        # The ranks are in step.
        handle = exchange.dispatch(good["x"], good["experts"], good["weights"])
        exchange.combine(handle, handle.rows)

    simulate(3, body)


def test_a_layer_of_one_rank_that_is_none_is_named_on_all():
    def body(fabric):
        with pytest.raises(CrosspointError) as caught:
            Exchange(fabric, experts=6, hidden=8, layer=-1 if fabric.rank == 1 else 0)
        error = caught.value
        assert error.argument == "layer" and "-1" in error.message and error.rank == 1 and error.is_agreed, error

    simulate(3, body)


def test_wrong_outputs_and_results_are_named():
    def body(fabric):
        exchange = Exchange(fabric, experts=6, hidden=16)
        problem = Problem(fabric.rank, 5)
        handle = exchange.dispatch(problem.x, problem.experts, problem.weights)
        odd = fabric.rank == 0

        def refused(argument, mentions, call):
            with pytest.raises(CrosspointError) as caught:
                call()
            error = caught.value
            assert error.argument == argument and mentions in error.message and error.rank == 0, error

        rows = handle.rows
        bad = rows.astype(np.float64)
        refused("outputs", "float64", lambda: exchange.combine(handle, bad if odd else rows))
        refused("output", "rows,", lambda: exchange.combine(handle, rows[1:] if odd else rows))
        read_only = np.empty_like(problem.x)
        read_only.flags.writeable = False
        refused("out", "read-only", lambda: exchange.combine(handle, rows, out=read_only if odd else None))
        refused("result", "4 rows, 5 expected", lambda: exchange.combine(handle, rows, out=problem.x[1:] if odd else None))
        refused("handle", "use a handle once, in order", lambda: exchange.combine_backward(handle, problem.dy))
        exchange.combine(handle, rows)
        with pytest.raises(CrosspointError, match="it has none before combine_backward"):
            handle.weight_gradients()
        refused("gradient", "list", lambda: exchange.combine_backward(handle, [1] if odd else problem.dy))
        gradients = exchange.combine_backward(handle, problem.dy)
        refused("row_gradients", "str", lambda: exchange.dispatch_backward(handle, "x" if odd else gradients))
        exchange.dispatch_backward(handle, gradients)

    simulate(2, body)


def test_options_must_be_right_and_the_same():
    def body(fabric):
        with pytest.raises(CrosspointError, match="'bf17' is no wire format"):
            Exchange(fabric, experts=6, hidden=8, options="wire=bf17" if fabric.rank == 1 else "")
        with pytest.raises(CrosspointError) as caught:
            Exchange(fabric, experts=6, hidden=8, options="wire=bf16" if fabric.rank == 1 else "")
        assert caught.value.code == Code.RANKS_DISAGREE and caught.value.argument == "wire-dispatch"
        return Exchange(fabric, experts=5, hidden=8, options="wire=bf16").local_experts

    assert simulate(2, body) == [range(0, 3), range(3, 5)]


def test_a_rank_that_raises_is_what_simulate_raises():
    heard = {}

    def body(fabric):
        exchange = Exchange(fabric, experts=6, hidden=16)
        if fabric.rank == 1:
            raise ValueError("the data are at an end")
        try:
            step(exchange, Problem(fabric.rank, 3))
        except CrosspointError as error:
            heard[fabric.rank] = error
            raise

    with pytest.raises(ValueError, match="at an end"):
        simulate(3, body)
    assert heard.keys() == {0, 2}
    for error in heard.values():
        assert error.code == Code.RANK_LOST and error.rank == 1 and "the data are at an end" in error.message
        assert not error.is_agreed


def test_arrays_outlive_their_handle():
    def body(fabric):
        exchange = Exchange(fabric, experts=6, hidden=16)
        problem = Problem(fabric.rank, 20)
        handle = exchange.dispatch(problem.x, problem.experts, problem.weights)
        rows = handle.rows
        kept = rows.copy()
        exchange.combine(handle, rows)
        del handle
        gc.collect()
        for seed in range(3):
            step(exchange, Problem(fabric.rank, 20, seed=seed + 1))
        assert np.array_equal(rows, kept)

    simulate(2, body)


def test_a_thousand_steps_take_no_more_memory():
    def body(fabric):
        exchange = Exchange(fabric, experts=6, hidden=16)
        problem = Problem(fabric.rank, 30)
        before = buffers = 0
        for number in range(1000):
            if number == 300:
                before, buffers = resident_bytes(), exchange.statistics.peak_buffer_bytes
            step(exchange, problem)
        return resident_bytes() - before, exchange.statistics.peak_buffer_bytes - buffers

    for resident, buffers in simulate(2, body):
        assert resident < 2 << 20 and buffers == 0


def test_a_saved_state_goes_on_bit_for_bit():
    def body(fabric):
        options = "wire-gradient=rotated:4"
        whole = Exchange(fabric, experts=6, hidden=16, options=options)
        resumed = Exchange(fabric, experts=6, hidden=16, options=options)
        step(whole, Problem(fabric.rank, 8))
        with pytest.raises(CrosspointError, match="no saved state"):
            resumed.restore("nothing")
        resumed.restore(whole.save())
        problem = Problem(fabric.rank, 8, seed=1)
        assert all(np.array_equal(a, b) for a, b in zip(step(whole, problem), step(resumed, problem)))
        whole.set_adapts(False)

    simulate(2, body)


def test_the_vote_can_be_left_to_the_end_of_a_step():
    def body(fabric):
        exchange = Exchange(fabric, experts=6, hidden=16, options="agreement=deferred")
        step(exchange, Problem(fabric.rank, 40))
        exchange.settle()

    simulate(2, body)


def test_statistics_count_what_was_moved():
    def body(fabric):
        exchange = Exchange(fabric, experts=6, hidden=16, options="wire=bf16")
        problem = Problem(fabric.rank, 40)
        step(exchange, problem)
        counted = exchange.statistics
        exchange.reset_statistics()
        assert exchange.statistics.dispatches == 0
        assert counted.dispatches == 1 and counted.rows_routed == (problem.experts >= 0).sum()
        for traffic in (counted.dispatch, counted.combine, counted.combine_backward, counted.dispatch_backward):
            assert 0 < traffic.wire_bytes < traffic.uncompressed_bytes
        assert set(counted.seconds) == {"hash", "cluster", "encode", "skew", "wait", "decode", "policy"}

    simulate(2, body)


def test_fabrics_sum_and_check():
    def body(fabric):
        values = np.full(5, fabric.rank, np.float32)
        fabric.allreduce(values)
        assert (values == 3).all() and not fabric.is_mpi and fabric.rank_count == 3
        with pytest.raises(CrosspointError, match="float64"):
            fabric.allreduce(values.astype(np.float64))
        with pytest.raises(CrosspointError, match="deadline"):
            fabric.set_deadline(-1)
        fabric.barrier()

    simulate(3, body)


def test_a_rank_that_does_not_come_is_named_at_the_deadline():
    gate = threading.Event()

    def body(fabric):
        if fabric.rank == 1:
            gate.wait(20)
            return
        with pytest.raises(CrosspointError) as caught:
            fabric.barrier()
        gate.set()
        assert caught.value.code == Code.DEADLINE_EXCEEDED and caught.value.rank == 1

    simulate(2, body, deadline=0.2)


def test_numbers_of_ranks_are_checked():
    with pytest.raises(CrosspointError, match="ranks"):
        simulate(0, print)


def test_ctrl_c_ends_simulated_ranks():
    program = """
import crosspoint, os, signal, threading, time
def body(fabric):
    if fabric.rank == 1:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
    else:
        fabric.barrier()
try:
    crosspoint.simulate(2, body)
except KeyboardInterrupt:
    print("interrupted")
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert outcome.stdout == "interrupted\n" and outcome.returncode == 0, outcome


def test_codes_are_those_of_the_library():
    from crosspoint._library import library

    for code in Code:
        name = library.crosspoint_status_name(int(code)).decode()
        assert name.lower() == code.name.replace("_", "").lower()
    assert library.crosspoint_status_name(len(Code) + 1) == b"unknown"


def test_structs_are_those_of_the_header():
    """Tests/CExamples/interface.txt is compared with the header by the tests of the library."""
    from crosspoint import _library

    listed, current = {}, None
    for line in (pathlib.Path(__file__).parents[2] / "Tests/CExamples/interface.txt").read_text().splitlines():
        words = line.split()
        if words[0] == "struct":
            current = listed.setdefault(words[1], [int(words[2])])
        elif words[0] != "symbol":
            current.append((int(words[0]), words[1], int(words[2])))
    for name, struct in (
        ("error", _library.Error),
        ("fabric_options", _library.FabricOptions),
        ("rows", _library.Rows),
        ("routing", _library.Routing),
        ("statistics", _library.Statistics),
    ):
        fields = [(getattr(struct, f).offset, f, getattr(struct, f).size) for f, _ in struct._fields_]
        assert listed.pop("crosspoint_" + name) == [struct.new().size] + fields
    assert not listed


def test_the_version_is_that_of_the_package():
    version = importlib.metadata.version("crosspoint")
    assert crosspoint.__version__ == version


def test_arrays_of_numpy_reach_every_rank():
    def body(fabric):
        send = [np.full(fabric.rank + p, 10 * fabric.rank + p, np.int16) for p in range(3)]
        for received in (
            fabric.exchange(send),
            fabric.exchange(send, [np.empty(p + fabric.rank, np.int16) for p in range(3)]),
        ):
            assert [a.tolist() for a in received] == [[10 * p + fabric.rank] * (p + fabric.rank) for p in range(3)]
        for bad, message in (([send[0]], "1 arrays for 3 ranks"), ([np.zeros((2, 2)).T] * 3, "a contiguous array is")):
            with pytest.raises(CrosspointError, match=message):
                fabric.exchange(bad)

    simulate(3, body)
