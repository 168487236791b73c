"""Transfers under jit and grad, against a plain mixture of every expert in jnp."""

import functools
import gc

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from conftest import Problem, resident_bytes  # noqa: E402

import crosspoint  # noqa: E402
from crosspoint import Code, CrosspointError, Exchange  # noqa: E402
from crosspoint.jax import ep_combine, ep_dispatch  # noqa: E402

HIDDEN, EXPERTS = 16, 6
CLOSE = dict(rtol=2e-4, atol=2e-4)


def simulate(ranks, body, **named):
    """Each rank on a device of its own: those of one device wait for each other's programs."""

    def on_device(fabric):
        with jax.default_device(jax.devices()[fabric.rank]):
            return body(fabric)

    return crosspoint.simulate(ranks, on_device, **named)


def matrices(numbers):
    return jnp.stack([jnp.asarray(np.random.default_rng(n).standard_normal((HIDDEN, HIDDEN), np.float32)) for n in numbers])


def mixture(w, x, scores, experts):
    """Every expert on every token."""
    all_outputs = jnp.tanh(jnp.einsum("th,ehf->tef", x, w))
    chosen = jnp.take_along_axis(all_outputs, jnp.maximum(experts, 0)[:, :, None], axis=1)
    return (jnp.where(experts >= 0, scores, 0)[:, :, None] * chosen).sum(axis=1)


def through(exchange, outputs, x, scores, experts, capacity=None, **named):
    """A layer whose experts make `outputs` of rows, and how many rows of each."""
    rows, in_use, memory, counts = ep_dispatch(exchange, experts, x, scores, capacity, **named)
    return ep_combine(exchange, memory, counts, outputs(rows, counts), in_use, len(x))


def same(rows, _):
    return rows


def layer(exchange, w, *arguments, **named):
    return through(exchange, lambda rows, counts: jnp.tanh(jax.lax.ragged_dot(rows, w, counts)), *arguments, **named)


def check_memory(exchange, step):
    """No dispatch stays open: its rows would take more memory with every step."""
    peaks = []
    for _ in range(2):
        for _ in range(3):
            jax.block_until_ready(step())
        peaks.append(exchange.statistics.peak_buffer_bytes)
    assert peaks[0] == peaks[1]


def arguments_of(rank, count):
    problem = Problem(rank, count)
    return tuple(map(jnp.asarray, (problem.x, problem.weights, problem.experts, problem.dy)))


def check_layer(fabric, counts, options=""):
    """A rank's outputs, and the gradients of tokens, weights and experts, are those of the plain mixture."""
    exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN, options=options)
    local, capacity = list(exchange.local_experts), 2 * max(1, sum(counts))
    parts = [arguments_of(rank, count) for rank, count in enumerate(counts)]
    x, scores, experts, dy = parts[fabric.rank]

    @jax.jit
    def step(w, x, scores):
        y, pull = jax.vjp(lambda *given: layer(exchange, *given, experts, capacity=capacity), w, x, scores)
        return y, pull(dy)

    y, (dw, dx, dscores) = step(matrices(local), x, scores)
    everything = matrices(range(EXPERTS))
    expected, pull = jax.vjp(functools.partial(mixture, experts=experts), everything, x, scores)
    np.testing.assert_allclose(y, expected, **CLOSE)
    for found, wanted in zip((dx, dscores), pull(dy)[1:]):
        np.testing.assert_allclose(found, wanted, **CLOSE)
    # Experts have the gradient of all ranks' tokens.
    total = sum(jax.vjp(lambda w: mixture(w, x, s, e), everything)[1](d)[0] for x, s, e, d in parts)
    np.testing.assert_allclose(dw, total[np.array(local)], **CLOSE)
    check_memory(exchange, lambda: step(matrices(local), x, scores))
    return True


def check_two_fabrics(whole, part):
    """Layers over two fabrics in one program."""
    x, scores, experts, dy = arguments_of(whole.rank, 6)
    exchanges = [Exchange(fabric, experts=EXPERTS, hidden=HIDDEN) for fabric in (whole, part)]

    @jax.jit
    def gradient(x):
        def loss(x):
            y = through(exchanges[0], same, x, scores, experts, 64)
            return (dy * (y + through(exchanges[1], same, 2 * x, scores, experts, 64, after=y))).sum()

        return jax.grad(loss)(x)

    kept = jnp.where(experts >= 0, scores, 0).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient(x), 3 * kept * dy, **CLOSE)
    return True


def test_bfloat16_goes_through_jit_and_grad_as_it_is():
    """Identity experts without loss: rounded where a result is stored, here twice on the way back."""

    def body(fabric):
        x, scores, experts, dy = arguments_of(fabric.rank, 9 * (fabric.rank % 2))
        x, dy = x.astype(jnp.bfloat16), dy.astype(jnp.bfloat16)
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN, options="rows=bf16")

        @jax.jit
        def step(x, scores):
            y, pull = jax.vjp(lambda x, scores: through(exchange, same, x, scores, experts, 40), x, scores)
            return y, pull(dy)

        y, (dx, dscores) = step(x, scores)
        weights = jnp.where(experts >= 0, scores, 0)

        def sums(rows):
            """Contributions are added in the order of choices, in floats."""
            total = weights[:, :1] * rows[0].astype(jnp.float32)
            return (total + weights[:, 1:] * rows[1].astype(jnp.float32)).astype(jnp.bfloat16)

        assert y.dtype == dx.dtype == jnp.bfloat16 and dscores.dtype == jnp.float32
        assert jnp.array_equal(y, sums([x, x]))
        sent = [(weights[:, k : k + 1] * dy.astype(jnp.float32)).astype(jnp.bfloat16) for k in range(2)]
        assert jnp.array_equal(dx, sum(part.astype(jnp.float32) for part in sent).astype(jnp.bfloat16))
        product = (x.astype(jnp.float32) * dy.astype(jnp.float32)).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(dscores, jnp.where(experts >= 0, product, 0), **CLOSE)

    simulate(3, body)


def test_labels_reach_the_exchange_under_jit_and_grad():
    def body(fabric):
        x, scores, experts, _ = arguments_of(fabric.rank, 200)
        labels = jnp.arange(200) % 4
        x = x + 10 * jnp.asarray(np.random.default_rng(1).standard_normal((4, HIDDEN), np.float32))[labels]

        def error(labels):
            exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN, options="wire=entropy:2,memory=16")

            @jax.jit
            def step(x, labels):
                def energy(x):
                    y = through(exchange, same, x, scores, experts, labels=labels)
                    return jnp.square(y).sum(), y

                return jax.grad(energy, has_aux=True)(x)

            for _ in range(4):
                _, y = jax.block_until_ready(step(x, labels))
            return jnp.square(y - jnp.where(experts >= 0, scores, 0).sum(axis=1, keepdims=True) * x).sum()

        return bool(error(labels) < error(None))

    assert simulate(3, body) == [True] * 3


@pytest.mark.parametrize("options", ["", "copies=rank"])
@pytest.mark.parametrize("counts", [[9], [5, 12], [7, 0, 20]])
def test_a_layer_is_the_plain_mixture_on_simulated_ranks(counts, options):
    simulate(len(counts), lambda fabric: check_layer(fabric, counts, options), deadline=30)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_layer_is_the_plain_mixture_under_mpi(launch, ranks):
    code, output, errors = launch(ranks, "jax_layer").wait(240)
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {r}: True" for r in range(ranks)], errors


def test_an_error_of_one_rank_is_told_on_each_under_mpi(launch):
    code, output, errors = launch(2, "jax_refused").wait(120)
    cause = "rank 1: dispatch: nonFinite: tokens: row 0, column 0 is nan"
    assert code == 0 and output.count(f"{cause}\n") == 2 and output.count("True") == 2, (output, errors)


def test_layers_in_a_scan_and_layers_that_come_after_others_keep_their_order():
    def body(fabric):
        one, two = (Exchange(fabric, experts=EXPERTS, hidden=HIDDEN) for _ in range(2))
        x, scores, experts, _ = arguments_of(fabric.rank, 3 + fabric.rank)
        w = matrices(one.local_experts)

        def loss(w, x, scores, with_layer):
            def block(x, _):
                y = with_layer(one, w, x, scores, None)
                return x + y - with_layer(two, w, 2 * x, scores, y), None

            return (jax.lax.scan(block, x, None, length=3)[0] ** 2).sum()

        def gathered(exchange, w, x, scores, after):
            return mixture(everything, x, scores, experts)

        everything = matrices(range(EXPERTS))
        ours = functools.partial(loss, with_layer=lambda e, w, x, s, y: layer(e, w, x, s, experts, 64, after=y))
        found = jax.jit(jax.value_and_grad(ours, (1, 2)))(w, x, scores)
        expected = jax.value_and_grad(functools.partial(loss, with_layer=gathered), (1, 2))(w, x, scores)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)

    simulate(2, body, deadline=30)


def test_only_what_is_differentiated_has_transfers_and_none_stays_open():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 5)

        def loss(scale, x, scores, outputs=lambda scale, rows: scale * rows):
            return through(exchange, lambda rows, _: outputs(scale, rows), x, scores, experts).sum()

        kept = jnp.where(experts >= 0, scores, 0).sum(axis=1, keepdims=True)
        # Experts alone; tokens, through outputs that do not depend on them; nothing.
        sums = np.array([jax.jit(jax.grad(loss))(2.0, x, scores), -(kept * x).sum()], np.float32)
        fabric.allreduce(sums)
        np.testing.assert_allclose(sums.sum(), 0, atol=1e-3)
        constant = functools.partial(loss, outputs=lambda scale, rows: jnp.ones_like(rows))
        assert (jax.jit(jax.grad(constant, 1))(2.0, x, scores) == 0).all()
        np.testing.assert_allclose(jax.jit(loss)(2.0, x, scores), 2 * (kept * x).sum(), rtol=1e-3)
        np.testing.assert_allclose(loss(2.0, x, scores), 2 * (kept * x).sum(), rtol=1e-3)
        for function in (loss, jax.grad(loss), jax.grad(loss, (1, 2)), jax.grad(constant, 1), jax.grad(constant, 2)):
            check_memory(exchange, functools.partial(jax.jit(function), 2.0, x, scores))

    simulate(2, body, deadline=30)


def test_what_a_capacity_has_no_room_for_is_nan_and_an_error_on_every_rank():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 8)
        rows, in_use, memory, counts = ep_dispatch(exchange, experts, x, scores, 2)
        assert jnp.isnan(rows).all() and counts.sum() > 2
        with pytest.raises(jax.errors.JaxRuntimeError) as caught:
            jax.block_until_ready(jax.jit(lambda: ep_combine(exchange, memory, counts, rows, in_use, 8))())
        text = str(caught.value)
        cause = f"rank 0: combine: invalidArgument: recv_capacity_per_rank: 2; {rows_of(0)} rows have come"
        assert text.endswith(f"on every rank: {cause}"), text
        # The ranks are in step.
        return jax.block_until_ready(layer(exchange, matrices(exchange.local_experts), x, scores, experts)).shape

    def rows_of(rank):
        return sum(int((problem.experts // 3 == rank).sum()) for problem in problems)

    problems = [Problem(rank, 8) for rank in range(2)]
    assert simulate(2, body, deadline=30) == [(8, HIDDEN)] * 2


def test_values_that_cannot_be_sent_are_named_on_every_rank():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 4)
        if fabric.rank == 1:
            x = x.at[0].set(jnp.nan)
            experts = experts.at[0].set(1)
        with pytest.raises(jax.errors.JaxRuntimeError, match="rank 1: dispatch: nonFinite: tokens: row 0, column 0 is nan"):
            jax.block_until_ready(jax.jit(lambda: ep_dispatch(exchange, experts, x, scores))())

    simulate(2, body, deadline=30)


WRONG = {
    "bfloat16": (dict(tokens=jnp.zeros((4, 8), jnp.bfloat16)), "tokens", "bfloat16 of shape (4, 8); float32 of shape (any, 8)"),
    "list": (dict(tokens=[[1.0]]), "tokens", "list; float32"),
    "hidden": (dict(tokens=jnp.zeros((4, 7))), "tokens", "float32 of shape (4, 7); float32 of shape (any, 8)"),
    "one dimension": (dict(tokens=jnp.zeros(8)), "tokens", "float32 of shape (8,)"),
    "float experts": (dict(topk_idx=jnp.zeros((4, 2))), "topk_idx", "float32 of shape (4, 2); integers of shape (4, any)"),
    "few experts": (dict(topk_idx=jnp.zeros((3, 2), jnp.int32)), "topk_idx", "int32 of shape (3, 2)"),
    "few weights": (dict(topk_weights=jnp.zeros((4, 1))), "topk_weights", "float32 of shape (4, 1); float32 of shape (4, 2)"),
    "no room": (dict(recv_capacity_per_rank=0), "recv_capacity_per_rank", "0; at least 1"),
    "labels": (dict(labels=jnp.zeros(3, jnp.int32)), "labels", "int32 of shape (3,); integers of shape (4)"),
    "after nothing": (dict(after=jnp.zeros((0, 8))), "after", "float32 of shape (0, 8)"),
    "after integers": (dict(after=jnp.zeros(1, jnp.int32)), "after", "int32 of shape (1,); floats are expected"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_while_tracing(name):
    changes, argument, mentions = WRONG[name]
    good = dict(tokens=jnp.zeros((4, 8)), topk_idx=jnp.zeros((4, 2), jnp.int32), topk_weights=jnp.zeros((4, 2)))

    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=8)
        with pytest.raises(CrosspointError) as caught:
            jax.jit(lambda: ep_dispatch(exchange, **{**good, **changes}))()
        assert caught.value.argument == argument and mentions in caught.value.message, caught.value
        assert caught.value.code == Code.INVALID_ARGUMENT and caught.value.rank == 0
        rows, in_use, memory, counts = ep_dispatch(exchange, **good)
        with pytest.raises(CrosspointError, match="ep_combine: invalid_argument: expert_out: float32 of shape"):
            ep_combine(exchange, memory, counts, rows[1:], in_use, 4)
        with pytest.raises(CrosspointError, match="ep_combine: invalid_argument: handle_mem: int32 of shape"):
            ep_combine(exchange, counts, memory, rows, in_use, 4)
        ep_combine(exchange, memory, counts, rows, in_use, 4)
        with pytest.raises(jax.errors.JaxRuntimeError, match="handle_mem: its dispatch has had all its transfers"):
            jax.block_until_ready(ep_combine(exchange, memory, counts, rows, in_use, 4))

    simulate(1, body)


def test_a_step_that_fails_leaves_nothing_open():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 4)
        experts = experts.at[0].set(1)

        @jax.jit
        @jax.grad
        def step(x):
            once = layer(exchange, matrices(exchange.local_experts), x, scores, experts)
            return layer(exchange, matrices(exchange.local_experts), once.at[0].set(jnp.nan), scores, experts).sum()

        def fail():
            with pytest.raises(jax.errors.JaxRuntimeError, match="on every rank: rank 0: dispatch: nonFinite"):
                jax.block_until_ready(step(x))

        check_memory(exchange, fail)

    simulate(2, body, deadline=30)


def test_dispatches_without_an_end_are_an_error_at_last():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(0, 2)
        evaluate = jax.jit(lambda: ep_dispatch(exchange, experts, x, scores))
        for _ in range(1000):
            evaluate()
        with pytest.raises(jax.errors.JaxRuntimeError, match="handleMisuse: handle_mem: 1000 dispatches wait"):
            jax.block_until_ready(evaluate())

    simulate(1, body)


def test_a_fabric_waits_for_transfers_that_were_launched():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 6)
        run = jax.jit(lambda x: layer(exchange, matrices(exchange.local_experts), x, scores, experts))
        for step in range(20):
            y = run(x)
            sums = np.ones(3, np.float32)
            fabric.allreduce(sums)
            fabric.barrier()
            assert (sums == fabric.rank_count).all() and jnp.isfinite(y).all()

    simulate(2, body, deadline=30)


def test_simulated_ranks_that_share_a_device_are_refused():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 4)
        if fabric.rank == 1:
            with pytest.raises(CrosspointError, match="fabric: simulated rank 1 on device 0.*device_count=2"):
                ep_dispatch(exchange, experts, x, scores)

    crosspoint.simulate(2, body)


def test_a_wrong_number_of_tokens_is_an_error_on_every_rank():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 4)
        rows, in_use, memory, counts = ep_dispatch(exchange, experts, x, scores)
        with pytest.raises(jax.errors.JaxRuntimeError, match="rank 1: combine: invalidArgument: .*5"):
            jax.block_until_ready(ep_combine(exchange, memory, counts, rows, in_use, 4 + fabric.rank))

    simulate(2, body)


@pytest.mark.parametrize("name", ["used", "none"])
def test_a_handle_that_is_none_on_one_rank_is_an_error_on_every_rank(name):
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, dy = arguments_of(fabric.rank, 4)

        def refused(transfer, call):
            mentions = f"on every rank: rank 1: {transfer}: handleMisuse: handle_mem: its dispatch has had"
            with pytest.raises(jax.errors.JaxRuntimeError, match=mentions):
                jax.block_until_ready(call())

        used = ep_dispatch(exchange, experts, x, scores)
        y = jax.block_until_ready(ep_combine(exchange, used[2], used[3], used[0], used[1], 4))
        for _ in range(2):
            open_one = ep_dispatch(exchange, experts, x, scores)
            rows, in_use, memory, counts = ep_dispatch(exchange, experts, x, scores)
            given = used[2] if name == "used" else jnp.full(8, 255, jnp.uint8)
            given = given if fabric.rank == 1 else memory
            refused("combine", lambda: ep_combine(exchange, given, counts, rows, in_use, 4))
            # Each rank knows of that by itself.
            with pytest.raises(jax.errors.JaxRuntimeError, match="handle_mem: it ended when another transfer failed"):
                jax.block_until_ready(ep_combine(exchange, open_one[2], open_one[3], open_one[0], open_one[1], 4))
            assert (through(exchange, same, x, scores, experts) == y).all()
        _, pull = jax.vjp(lambda x: through(exchange, same, x, scores, experts), x)
        _, again = jax.vjp(lambda x: through(exchange, same, x, scores, experts), x)
        jax.block_until_ready(pull(dy))
        refused("combineBackward", lambda: (pull if fabric.rank == 1 else again)(dy))
        assert (through(exchange, same, x, scores, experts) == y).all()

    simulate(3, body, deadline=20)


def test_a_program_that_outlives_its_exchange_says_so():
    def body(fabric):
        x, scores, experts, _ = arguments_of(fabric.rank, 4)

        def program(x):
            return through(Exchange(fabric, experts=EXPERTS, hidden=HIDDEN), same, x, scores, experts)

        compiled = jax.jit(program).lower(x).compile()
        jax.clear_caches()
        gc.collect()
        with pytest.raises(jax.errors.JaxRuntimeError, match="dispatch: handleMisuse: exchange: it has been freed"):
            jax.block_until_ready(compiled(x))

    simulate(1, body)


def test_a_rank_that_raises_is_what_simulate_raises():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 4)
        if fabric.rank == 1:
            raise ValueError("the data are at an end")
        with pytest.raises(jax.errors.JaxRuntimeError, match="rankLost.*the data are at an end"):
            jax.block_until_ready(ep_dispatch(exchange, experts, x, scores))

    with pytest.raises(ValueError, match="at an end"):
        simulate(2, body, deadline=30)


def test_vmap_makes_one_transfer_after_another():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, dy = arguments_of(fabric.rank, 4 + fabric.rank)

        def loss(x):
            return (dy * through(exchange, lambda rows, _: jnp.tanh(rows), x, scores, experts, 40)).sum()

        both = jnp.stack([x, 2 * x])
        found = jax.jit(jax.vmap(jax.grad(loss)))(both)
        np.testing.assert_allclose(found, jnp.stack([jax.grad(loss)(x) for x in both]), **CLOSE)

    simulate(2, body, deadline=30)


def test_jax_refuses_to_make_transfers_again():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 4)
        run = functools.partial(layer, exchange, matrices(exchange.local_experts), scores=scores, experts=experts)
        with pytest.raises(NotImplementedError, match="remat"):
            jax.grad(lambda x: jax.checkpoint(run)(x).sum())(x)

    simulate(1, body)


def test_programs_run_in_the_order_in_which_they_were_launched():
    """Without waiting, while one rank is slower, and with results that nobody uses."""

    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 5)
        work = jnp.ones((700, 700)) if fabric.rank else jnp.ones((7, 7))

        @jax.jit
        def step(x, factor):
            for _ in range(10):
                factor = jnp.tanh(factor @ factor)
            return through(exchange, same, x * factor[0, 0], scores, experts)

        results = [step(number * x, work) for number in range(20)]
        kept = jnp.where(experts >= 0, scores, 0).sum(axis=1, keepdims=True)
        for number, y in enumerate(results):
            np.testing.assert_allclose(y, number * kept * x, **CLOSE)

    simulate(2, body, deadline=30)


def test_layers_in_a_row_keep_their_order_where_a_rank_has_nothing_to_send():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, dy = arguments_of(fabric.rank, 9 if fabric.rank else 1)
        if fabric.rank == 0:
            experts = jnp.full_like(experts, -1)
        everything, w = matrices(range(EXPERTS)), matrices(exchange.local_experts)

        def stack(x, w, one):
            for _ in range(3):
                x = x + one(w, x)
            return (dy * x).sum()

        found = jax.jit(jax.grad(lambda x: stack(x, w, lambda w, x: layer(exchange, w, x, scores, experts, 40))))(x)
        expected = jax.grad(lambda x: stack(x, everything, lambda w, x: mixture(w, x, scores, experts)))(x)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)

    simulate(2, body, deadline=30)


def test_arrays_that_are_transposed_by_xla_arrive_as_they_are():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 6)
        w = matrices(exchange.local_experts)
        plain = jax.jit(lambda x: layer(exchange, w, x, scores, experts))(x)
        turned = jax.jit(lambda x: layer(exchange, w, x.T, scores.T.T, experts))(x.T)
        assert (plain == turned).all()

    simulate(2, body, deadline=30)


def test_a_thousand_steps_take_no_more_memory():
    def body(fabric):
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 30)
        w = matrices(exchange.local_experts)
        step = jax.jit(jax.grad(lambda w, x, scores: layer(exchange, w, x, scores, experts).sum(), (0, 1, 2)))
        before = 0
        for number in range(1000):
            if number == 300:
                before = resident_bytes()
            jax.block_until_ready(step(w, x, scores))
        return resident_bytes() - before

    assert max(simulate(2, body)) < 4 << 20
