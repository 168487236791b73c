"""The back end of torch.distributed: its calls beside what they mean, and programs under mpirun."""

import os
import signal

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402

from conftest import resident_bytes  # noqa: E402
from crosspoint import CrosspointError, simulate  # noqa: E402
from crosspoint.distributed import ProcessGroup  # noqa: E402

RANKS = 3
TYPES = (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)


def of(rank, *shape, dtype=torch.float32):
    """What a rank has; every rank can make what all have."""
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(rank)).to(dtype)


def options(kind, **values):
    made = kind()
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_go_where_uneven_splits_say(dtype):
    # Rank r sends (r + p) % 3 rows to rank p; nothing among them.
    rows = [[(r + p) % 3 for p in range(RANKS)] for r in range(RANKS)]

    def body(fabric):
        r, group = fabric.rank, ProcessGroup(fabric)
        to, come = rows[r], [rows[p][r] for p in range(RANKS)]
        x = of(r, sum(to), 2, 5, dtype=dtype)
        y = torch.empty(sum(come), 2, 5, dtype=dtype)
        group.alltoall_base(y, x, come, to, None).wait()
        expected = [of(p, sum(rows[p]), 2, 5, dtype=dtype).split(rows[p])[r] for p in range(RANKS)]
        assert torch.equal(y, torch.cat(expected))
        # The same as tensors of their own.
        each = [torch.empty(n, 2, 5, dtype=dtype) for n in come]
        group.alltoall(each, [part.contiguous() for part in x.split(to)]).wait()
        assert torch.equal(torch.cat(each), y)
        # Equal parts, without splits.
        x, y = of(r, 6, dtype=dtype), torch.empty(6, dtype=dtype)
        group.alltoall_base(y, x, [], [], None)
        assert torch.equal(y, torch.cat([of(p, 6, dtype=dtype).chunk(3)[r] for p in range(RANKS)]))

    simulate(RANKS, body)


@pytest.mark.parametrize("count", [0, 1, 7, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int32])
def test_sums_are_added_in_the_order_of_ranks(count, dtype):
    everyone = [of(r, count, dtype=dtype) / (7 if dtype.is_floating_point else 1) for r in range(RANKS)]
    everyone = [x.to(dtype) for x in everyone]
    wide = [x.float() if dtype is torch.bfloat16 else x for x in everyone]
    total = (wide[0] + wide[1] + wide[2]).to(dtype)

    def body(fabric):
        group = ProcessGroup(fabric)
        x = everyone[fabric.rank].clone()
        group.allreduce([x], options(dist.AllreduceOptions))
        assert torch.equal(x, total)
        part = torch.empty(count, dtype=dtype)
        scattered = options(dist.ReduceScatterOptions)
        whole = everyone[fabric.rank].repeat(RANKS)
        group.reduce_scatter_single(part, whole, scattered)
        assert torch.equal(part, total)
        group.reduce_scatter([part.zero_()], [[everyone[fabric.rank]] * RANKS], scattered)
        assert torch.equal(part, total)

    simulate(RANKS, body)


def test_every_reduction_is_that_of_torch():
    def body(fabric):
        group, everyone = ProcessGroup(fabric), torch.stack([of(r, 4, 3, dtype=torch.int32) for r in range(RANKS)])
        op = dist.ReduceOp
        bits = everyone[0] | everyone[1] | everyone[2]
        for kind, expected in (
            (op.MAX, everyone.amax(0)),
            (op.MIN, everyone.amin(0)),
            (op.PRODUCT, everyone.prod(0).int()),
            (op.BOR, bits),
            (op.BAND, everyone[0] & everyone[1] & everyone[2]),
            (op.BXOR, everyone[0] ^ everyone[1] ^ everyone[2]),
        ):
            x = everyone[fabric.rank].clone()
            group.allreduce([x], options(dist.AllreduceOptions, reduceOp=kind))
            assert torch.equal(x, expected), kind
        x = everyone[fabric.rank].float()
        group.allreduce([x], options(dist.AllreduceOptions, reduceOp=op.AVG))
        assert torch.equal(x, everyone.sum(0).float() / RANKS)

    simulate(RANKS, body)


@pytest.mark.parametrize("dtype", TYPES)
def test_everybody_gets_what_one_has(dtype):
    def body(fabric):
        group = ProcessGroup(fabric)
        everyone = torch.stack([of(r, 2, 3, dtype=dtype) for r in range(RANKS)])
        whole = torch.empty_like(everyone)
        group.all_gather_single(whole, everyone[fabric.rank]).wait()
        assert torch.equal(whole, everyone)
        parts = [torch.empty(2, 3, dtype=dtype) for _ in range(RANKS)]
        group.allgather([parts], [everyone[fabric.rank]])
        assert torch.equal(torch.stack(parts), everyone)
        x = everyone[fabric.rank].clone()
        group.broadcast([x], options(dist.BroadcastOptions, rootRank=1))
        assert torch.equal(x, everyone[1])
        group.barrier()

    simulate(RANKS, body)


def test_what_is_wrong_is_named():
    def body(fabric):
        group, x = ProcessGroup(fabric), torch.zeros(4, 4)
        for call, argument, message in (
            (lambda: group.alltoall_base(x, x, [2, 2], [1, 2], None), "input", r"split sizes \[1, 2\]; 2 are expected with"),
            (lambda: group.alltoall_base(x, x, [4], [2, 2], None), "output", "2 are expected with the sum 4"),
            (lambda: group.alltoall_base(x[:3], x[:3], [], [], None), "input", "3 rows for 2 ranks"),
            (lambda: group.alltoall_base(x, x.t(), [], [], None), "input", "a contiguous tensor on the CPU is expected"),
            (lambda: group.alltoall_base(x, x.double(), [], [], None), "input", "float64; torch.float32 is expected"),
            (lambda: group.allgather([[x]], [x]), "tensor_list", "1 tensors for 2 ranks"),
            (lambda: group.all_gather_single(x[:1, :3].contiguous(), x), "output", "3 elements for 2 ranks"),
            (lambda: group.allreduce([x.to("meta")], options(dist.AllreduceOptions)), "tensor", "on meta"),
        ):
            with pytest.raises(CrosspointError, match=message) as caught:
                call()
            assert caught.value.argument == argument
        for name in ("gather", "scatter", "reduce", "send", "recv", "allgather_into_tensor_coalesced"):
            with pytest.raises(NotImplementedError, match=f"torch.distributed's {name} is not there"):
                getattr(group, name)([x])
        group.barrier()

    simulate(2, body)


def test_splits_that_do_not_match_name_the_sender():
    def body(fabric):
        fabric.set_deadline(0.5)
        # Rank 0 sends one row to rank 1, which expects two.
        to, come = ([3, 1], [3, 1]) if fabric.rank == 0 else ([1, 3], [2, 3])
        with pytest.raises(CrosspointError) as caught:
            ProcessGroup(fabric).alltoall_base(torch.empty(sum(come), 2), torch.zeros(4, 2), come, to, None)
        return caught.value.code.name, caught.value.rank

    assert ("TRUNCATED_FRAME", 0) in simulate(2, body)


def test_calls_leave_nothing_behind():
    def body(fabric):
        group, x, y = ProcessGroup(fabric), torch.zeros(4096), torch.zeros(4096)
        for number in range(1000):
            if number == 200:
                before = resident_bytes()
            group.alltoall_base(y, x, [], [], None).wait()
            group.allreduce([x], options(dist.AllreduceOptions)).wait()
        return resident_bytes() - before

    assert max(simulate(2, body)) < 4 << 20


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_program_runs_as_with_gloo(launch, ranks):
    pytest.importorskip("mpi4py")
    code, output, errors = launch(ranks, "process_group").wait(120)
    assert code == 0 and output.split() == ["True"] * ranks, f"{output}\n{errors}"


def lose(launch, how, timeout):
    pytest.importorskip("mpi4py")
    # With mpi4py's own start an exception ends the job.
    return launch(2, "lost_in_process_group", how, timeout, python=("-m", "mpi4py"))


def test_a_silent_rank_is_named_at_the_groups_timeout(launch):
    code, output, errors = lose(launch, "sleeps", "2").wait()
    assert code != 0 and "rank 0: DEADLINE_EXCEEDED 1" in output, f"{output}\n{errors}"


def test_an_exception_on_one_rank_ends_the_job_and_is_shown(launch):
    code, _, errors = lose(launch, "raises", "300").wait()
    assert code != 0 and errors.count("ValueError: the data are at an end") == 1, errors


def test_a_killed_rank_ends_the_job(launch):
    job = lose(launch, "sleeps", "300")
    os.kill(job.rank(1), signal.SIGKILL)
    assert job.wait(30)[0] != 0
