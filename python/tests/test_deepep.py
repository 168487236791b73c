"""DeepEP's calls, against what its documentation says they return, computed from every rank's tokens."""

import pytest

torch = pytest.importorskip("torch")

from conftest import resident_bytes  # noqa: E402

from crosspoint import Code, CrosspointError, simulate  # noqa: E402
from crosspoint.deepep import Buffer, EventOverlap  # noqa: E402

HIDDEN, TOP_K = 16, 3
torch.set_num_threads(1)


def tokens_of(rank, count, experts, dtype=torch.float32):
    """Tokens, choices and weights of a rank; some choices are none, some tokens have none at all."""
    generator = torch.Generator().manual_seed(100 + rank)
    x = torch.randn(count, HIDDEN, generator=generator).to(dtype)
    indices = torch.rand(count, experts, generator=generator).topk(TOP_K).indices
    indices[torch.rand(count, TOP_K, generator=generator) < 0.2] = -1
    indices[::5] = -1
    return x, indices, torch.rand(count, TOP_K, generator=generator)


def send(buffer, x, indices, weights, experts, **options):
    """As DeepEP's README calls it."""
    per_rank, per_rdma_rank, per_expert, in_rank, event = buffer.get_dispatch_layout(
        indices, experts, previous_event=Buffer.capture(), async_finish=True
    )
    return buffer.dispatch(
        x,
        topk_idx=indices,
        topk_weights=weights,
        num_tokens_per_rank=per_rank,
        num_tokens_per_rdma_rank=per_rdma_rank,
        is_token_in_rank=in_rank,
        num_tokens_per_expert=per_expert,
        config=Buffer.get_dispatch_config(buffer.group_size),
        previous_event=event,
        async_finish=True,
        allocate_on_comm_stream=True,
        **options,
    )


def check_calls(fabric_or_group, counts, dtype=torch.float32):
    """All that a dispatch and its combines return, and that every value is the right one."""
    buffer = Buffer(fabric_or_group, 1 << 20, 0)
    rank, ranks = buffer.rank, buffer.group_size
    local = 3
    experts = local * ranks
    parts = [tokens_of(r, count, experts, dtype) for r, count in enumerate(counts)]
    x, indices, weights = parts[rank]
    recv_x, recv_indices, recv_weights, per_expert, handle, event = send(
        buffer, x, indices, weights, experts, expert_alignment=4
    )
    event.current_stream_wait()

    # What arrived, by source rank and token.
    first = rank * local
    for_rank = [((i >= first) & (i < first + local)) for _, i, _ in parts]
    mine = [part.any(dim=1) for part in for_rank]
    assert torch.equal(recv_x, torch.cat([p[0][m] for p, m in zip(parts, mine)])) and recv_x.dtype == dtype
    kept = torch.cat([part[m] for part, m in zip(for_rank, mine)])
    chosen = torch.cat([p[1][m] for p, m in zip(parts, mine)])
    assert torch.equal(recv_indices, torch.where(kept, chosen - first, -1)) and recv_indices.dtype == torch.int64
    given = torch.cat([p[2][m] for p, m in zip(parts, mine)])
    assert torch.equal(recv_weights, torch.where(kept, given, 0))
    true_counts = [int((recv_indices == number).sum()) for number in range(local)]
    assert per_expert == [-(-count // 4) * 4 for count in true_counts]

    # What comes back is the plain sum over ranks; identity gives each token as often as it was sent.
    copies = buffer.get_dispatch_layout(indices, experts)[3].sum(dim=1, keepdim=True)
    bias = torch.ones_like(x)
    back, back_weights, _ = buffer.combine(recv_x, handle, topk_weights=recv_weights, bias=bias, async_finish=True)
    expected = (x.float() * copies + bias.float()).to(dtype)
    torch.testing.assert_close(back, expected)
    assert back.dtype == dtype and back.shape == x.shape
    assert torch.equal(back_weights, torch.where(indices >= 0, weights, 0))

    # A handle serves again, in any order.
    again = buffer.dispatch(2 * x, handle=handle)
    assert torch.equal(again[0], 2 * recv_x) and again[1:5] == (None,) * 4
    again = buffer.dispatch(x.float()[:, :5], handle=handle)[0]
    assert torch.equal(again, recv_x.float()[:, :5])
    for scale in (1, 2):
        y, none, _ = buffer.combine(scale * recv_x, handle)
        torch.testing.assert_close(y, (scale * x.float() * copies).to(dtype))
        assert none is None
    torch.testing.assert_close(buffer.combine(again, handle)[0], x.float()[:, :5] * copies)
    torch.testing.assert_close(buffer.combine(recv_x, handle, recv_weights)[1], back_weights)
    return True


COUNTS = [[9], [5, 12], [7, 0, 3, 20], [0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("counts", COUNTS)
def test_calls_return_what_deepep_documents_on_simulated_ranks(counts, dtype):
    simulate(len(counts), lambda fabric: check_calls(fabric, counts, dtype), ranks_per_node=2, deadline=20)


@pytest.mark.parametrize("ranks", [2, 4])
def test_calls_return_what_deepep_documents_under_mpi(launch, ranks):
    code, output, errors = launch(ranks, "deepep").wait(120)
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {r}: True" for r in range(ranks)], errors


def test_a_process_group_of_other_ranks_is_taken_and_two_buffers_keep_apart(launch):
    code, output, errors = launch(4, "deepep_groups").wait(120)
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {r}: True" for r in range(4)], errors


class DispatchOfReadme(torch.autograd.Function):
    """As DeepEP's README: the backward pass of a dispatch is a combine."""

    @staticmethod
    def forward(ctx, x, weights, buffer, indices, experts, made):
        recv_x, recv_indices, recv_weights, _, handle, _ = send(buffer, x, indices, weights, experts)
        ctx.buffer, ctx.handle = buffer, handle
        made += [handle, recv_indices]
        return recv_x, recv_weights

    @staticmethod
    def backward(ctx, dx, dweights):
        dx, dweights, _ = ctx.buffer.combine(dx, ctx.handle, topk_weights=dweights)
        return dx, dweights, None, None, None, None


class CombineOfReadme(torch.autograd.Function):
    """The backward pass of a combine is a dispatch."""

    @staticmethod
    def forward(ctx, rows, buffer, handle):
        ctx.buffer, ctx.handle = buffer, handle
        return buffer.combine(rows, handle)[0]

    @staticmethod
    def backward(ctx, dy):
        return ctx.buffer.dispatch(dy, handle=ctx.handle)[0], None, None


def mixture(x, indices, weights, experts, first=0):
    """Expert e squares and multiplies by e + 1."""
    number = torch.where(indices >= 0, indices + first + 1, 0)
    return (weights * number).sum(dim=1, keepdim=True) * x * x


def test_each_is_the_others_backward_pass():
    def body(fabric):
        counts, experts = [6, 0, 11], 6
        x, indices, weights = tokens_of(fabric.rank, counts[fabric.rank], experts)
        buffer = Buffer(fabric)
        found = [x.requires_grad_(), weights.requires_grad_()]
        expected = [value.detach().clone().requires_grad_() for value in found]
        for _ in range(2):
            made = []
            rows, row_weights = DispatchOfReadme.apply(x, weights, buffer, indices, experts, made)
            outputs = mixture(rows, made[1], row_weights, experts, first=2 * fabric.rank)
            y = CombineOfReadme.apply(outputs, buffer, made[0])
            z = mixture(expected[0], indices, expected[1], experts)
            torch.testing.assert_close(y, z)
            y.square().sum().backward()
            z.square().sum().backward()
        for a, b in zip(found, expected):
            torch.testing.assert_close(a.grad, b.grad)

    simulate(3, body)


def test_tokens_travel_without_choices():
    def body(fabric):
        x, indices, _ = tokens_of(fabric.rank, 5, 4)
        buffer = Buffer(fabric)
        per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(indices, 4)
        recv_x, none, none_either, counts, handle, _ = buffer.dispatch(
            x, num_tokens_per_rank=per_rank, is_token_in_rank=in_rank, num_tokens_per_expert=per_expert
        )
        assert none is None and none_either is None and len(recv_x) == handle.num_recv_tokens
        total = per_expert.numpy().astype("float32")
        fabric.allreduce(total)
        assert counts == total[2 * fabric.rank : 2 * fabric.rank + 2].astype(int).tolist()

    simulate(2, body)


def test_rows_that_are_not_contiguous_are_copied_and_nan_travels():
    def body(fabric):
        x, indices, weights = tokens_of(fabric.rank, 6, 4)
        x[1] = float("nan")
        buffer = Buffer(fabric)
        plain = send(buffer, x, indices, weights, 4)[0]
        for same in (x.T.contiguous().T, torch.cat([x, x], dim=1)[:, :HIDDEN]):
            assert not same.is_contiguous()
            assert torch.equal(send(buffer, same, indices, weights, 4)[0].view(torch.int32), plain.view(torch.int32))

    simulate(2, body)


WRONG = {
    "float64": (dict(x=torch.zeros(4, 8, dtype=torch.float64)), "x", "torch.float64 of shape torch.Size([4, 8])"),
    "list": (dict(x=[[1.0]]), "x", "list; float32 or bfloat16 of shape (tokens, hidden) on the CPU is expected"),
    "one dimension": (dict(x=torch.zeros(8)), "x", "torch.Size([8])"),
    "rows": (dict(x=torch.zeros(5, 8)), "is_token_in_rank", "torch.bool of shape (5, 3) is expected"),
    "int32 indices": (dict(topk_idx=torch.zeros(4, 2, dtype=torch.int32)), "topk_idx", "torch.int32"),
    "no such expert": (dict(topk_idx=torch.full((4, 2), 6)), "topk_idx", "numbers from 6 to 6; there are 6 experts"),
    "no weights": (dict(topk_weights=None), "topk_weights", "NoneType; torch.float32 of shape (4, 2) is expected"),
    "mask": (dict(is_token_in_rank=torch.zeros(4, 3)), "is_token_in_rank", "torch.float32"),
    "counts": (dict(num_tokens_per_rank=torch.tensor([4, 1, 0]).int()), "num_tokens_per_rank", "[4, 1, 0]; is_token"),
    "int64 counts": (dict(num_tokens_per_rank=torch.zeros(3).long()), "num_tokens_per_rank", "torch.int64"),
    "few experts": (dict(num_tokens_per_expert=torch.zeros(5).int()), "num_experts", "5; a multiple of the 3 ranks"),
    "no layout": (dict(num_tokens_per_expert=None), "num_tokens_per_expert", "NoneType"),
    "no handle": (dict(handle=(1, 2)), "handle", "tuple; the handle of a dispatch"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_on_one_rank_is_named_on_all(name):
    changes, argument, mentions = WRONG[name]

    def body(fabric):
        buffer = Buffer(fabric)
        indices = torch.zeros(4, 2, dtype=torch.int64)
        per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(indices, 6)
        good = dict(
            x=torch.zeros(4, 8),
            topk_idx=indices,
            topk_weights=torch.zeros(4, 2),
            num_tokens_per_rank=per_rank,
            is_token_in_rank=in_rank,
            num_tokens_per_expert=per_expert,
        )
        with pytest.raises(CrosspointError) as caught:
            buffer.dispatch(**{**good, **changes} if fabric.rank == 1 else good)
        error = caught.value
        assert error.argument == argument and mentions in error.message, error
        assert error.rank == 1 and error.is_agreed and error.code == Code.INVALID_ARGUMENT
        assert error.operation == "dispatch" and str(error).startswith("rank 1: dispatch: invalidArgument: ")
        # The ranks are in step.
        recv_x, _, weights, _, handle, _ = buffer.dispatch(**good)
        for wrong, argument_of_combine in (
            (dict(x=recv_x[:0] if len(recv_x) else torch.zeros(1, 8)), "x"),
            (dict(topk_weights=torch.zeros(1, 7)), "topk_weights"),
            (dict(bias=torch.zeros(1, 8)), "bias"),
            (dict(handle=None), "handle"),
        ):
            fine = dict(x=recv_x, handle=handle, topk_weights=weights)
            with pytest.raises(CrosspointError) as caught:
                buffer.combine(**{**fine, **wrong} if fabric.rank == 2 else fine)
            assert caught.value.argument == argument_of_combine and caught.value.operation == "combine"
            assert caught.value.rank == 2 and caught.value.is_agreed
        buffer.combine(recv_x, handle)

    simulate(3, body)


def test_what_ranks_do_differently_is_named():
    def body(fabric):
        buffer, odd = Buffer(fabric), fabric.rank == 1
        x, indices, weights = tokens_of(fabric.rank, 3, 4)
        recv_x, _, _, _, handle, _ = send(buffer, x, indices, weights, 4)
        calls = {
            "hidden: 7 on rank 1, 16 on rank 0": lambda: buffer.dispatch(x[:, :7] if odd else x, handle=handle),
            "dtype: torch.bfloat16 on rank 1": lambda: buffer.combine(recv_x.bfloat16() if odd else recv_x, handle),
            "call: combine on rank 1, dispatch with a handle": lambda: (
                buffer.combine(recv_x, handle) if odd else buffer.dispatch(x, handle=handle)
            ),
        }
        for mentions, call in calls.items():
            with pytest.raises(CrosspointError, match=mentions) as caught:
                call()
            assert caught.value.code == Code.RANKS_DISAGREE and caught.value.is_agreed
        buffer.combine(recv_x, handle)

    simulate(2, body)


def test_the_layout_is_checked_on_its_rank():
    def body(fabric):
        buffer = Buffer(fabric)
        with pytest.raises(CrosspointError, match="num_experts: 5; a multiple of the 2 ranks"):
            buffer.get_dispatch_layout(torch.zeros(1, 1, dtype=torch.int64), 5)
        with pytest.raises(CrosspointError, match="topk_idx: numbers from 9 to 9; there are 4 experts"):
            buffer.get_dispatch_layout(torch.full((1, 1), 9), 4)

    simulate(2, body)


def test_what_needs_a_gpu_is_not_implemented_by_name():
    def body(fabric):
        for option in ("low_latency_mode", "allow_mnnvl", "use_fabric", "enable_shrink", "num_qps_per_rank"):
            with pytest.raises(NotImplementedError, match=option):
                Buffer(fabric, **{option: True})
        buffer = Buffer(fabric)
        for name in (
            "low_latency_dispatch",
            "low_latency_combine",
            "clean_low_latency_buffer",
            "get_low_latency_rdma_size_hint",
            "get_comm_stream",
            "get_local_buffer_tensor",
        ):
            with pytest.raises(NotImplementedError, match=name):
                getattr(buffer, name)(1)
        x = torch.zeros(1, 4)
        with pytest.raises(NotImplementedError, match="fp8"):
            buffer.dispatch((x, x))
        with pytest.raises(NotImplementedError, match="num_worst_tokens"):
            buffer.dispatch(x, num_worst_tokens=4)
        with pytest.raises(NotImplementedError, match="previous_event"):
            buffer.dispatch(x, previous_event="a CUDA event")
        with EventOverlap() as event:
            event.current_stream_wait()
        config = Buffer.get_combine_config(1)
        assert config.get_nvl_buffer_size_hint(4, 1) == config.get_rdma_buffer_size_hint(4, 1) == 0
        Buffer.set_num_sms(24)
        assert not Buffer.is_sm90_compiled()
        buffer.destroy()

    simulate(1, body)


def test_a_thousand_steps_take_no_more_memory():
    def body(fabric):
        buffer = Buffer(fabric)
        x, indices, weights = tokens_of(fabric.rank, 30, 4)
        before = 0
        for number in range(1000):
            if number == 300:
                before = resident_bytes()
            recv_x, _, recv_weights, _, handle, _ = send(buffer, x, indices, weights, 4)
            buffer.combine(recv_x, handle)
            gradients = buffer.dispatch(x, handle=handle)[0]
            buffer.combine(gradients, handle, topk_weights=recv_weights)
        assert not handle.pending
        return resident_bytes() - before

    assert max(simulate(2, body)) < 2 << 20
