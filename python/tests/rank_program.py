"""What a rank of a test does: `rank_program.py SCENARIO [ARGUMENTS]`, under mpirun."""

import os
import sys
import time

import numpy as np
from conftest import Problem, step

import crosspoint
from crosspoint import CrosspointError, Exchange, Fabric


def say(text):
    """One line, in one piece."""
    os.write(1, f"{text}\n".encode())


def agrees(fabric, tokens=11):
    """Whether a step over these ranks is that of the gathered model."""
    problem = Problem(fabric.rank, tokens)
    found = step(Exchange(fabric, experts=6, hidden=16), problem)
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(found, problem.oracle()))


def communicator():
    from mpi4py import MPI

    with Fabric.of(MPI.COMM_WORLD) as fabric:
        assert fabric.rank == MPI.COMM_WORLD.rank and fabric.rank_count == MPI.COMM_WORLD.size and fabric.is_mpi
        say(f"rank {fabric.rank}: {agrees(fabric, tokens=5 * fabric.rank)}")
    del fabric


def alone():
    """Without mpi4py."""
    with crosspoint.world() as fabric:
        say(f"rank {fabric.rank} of {fabric.rank_count}: {agrees(fabric)}")
    assert "mpi4py" not in sys.modules


def bfloat16():
    from mpi4py import MPI
    from test_bfloat16 import check_transfers

    count = 0
    for messages_only in (False, True):
        with Fabric.of(MPI.COMM_WORLD, messages_only=messages_only) as fabric:
            for options in ("", "wire=fp8", "wire=rotated:4"):
                check_transfers(fabric, options)
                count += 1
    say(f"rank {MPI.COMM_WORLD.rank}: {count}")


def two_communicators():
    from mpi4py import MPI

    half = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank % 2)
    whole, part = Fabric.of(MPI.COMM_WORLD), Fabric.of(half, messages_only=True)
    a, b = Exchange(whole, experts=6, hidden=16), Exchange(part, experts=6, hidden=16)
    p, q = Problem(whole.rank, 9), Problem(part.rank, 4, seed=1)
    # Their transfers take turns.
    first = a.dispatch(p.x, p.experts, p.weights)
    second = b.dispatch(q.x, q.experts, q.weights)
    y = a.combine(first, first.rows)
    z = b.combine(second, second.rows)
    for found, problem in ((y, p), (z, q)):
        kept = np.where(problem.experts >= 0, problem.weights, 0).sum(axis=1, keepdims=True)
        assert np.allclose(found, kept * problem.x, rtol=1e-4, atol=1e-5)
    say(f"rank {whole.rank}: {agrees(whole) and agrees(part)}")
    part.finalize()
    whole.finalize()


def raises():
    with crosspoint.world() as fabric:
        exchange = Exchange(fabric, experts=6, hidden=16)
        step(exchange, Problem(fabric.rank, 3))
        if fabric.rank == 1:
            raise ValueError("the data are at an end")
        step(exchange, Problem(fabric.rank, 3))


def exits():
    with crosspoint.world() as fabric:
        agrees(fabric)
        sys.exit()


def agreed():
    with crosspoint.world() as fabric:
        exchange = Exchange(fabric, experts=6, hidden=16)
        problem = Problem(fabric.rank, 3)
        try:
            exchange.dispatch(problem.x.astype(np.float64) if fabric.rank == 1 else problem.x, problem.experts, problem.weights)
        except CrosspointError as error:
            say(f"rank {fabric.rank}: {error.argument} of rank {error.rank}")
        say(f"rank {fabric.rank}: {agrees(fabric)}")


def waits(deadline):
    """The last rank never comes."""
    with crosspoint.world(deadline=float(deadline)) as fabric:
        say(f"ready {fabric.rank} {os.getpid()}")
        if fabric.rank == fabric.rank_count - 1:
            time.sleep(60)
        try:
            fabric.barrier()
        except CrosspointError as error:
            say(f"rank {fabric.rank}: {error.code.name} {error.rank}")
            raise


def torch_layer():
    from test_torch import check_layer

    with crosspoint.world() as fabric:
        counts = [7, 0, 30, 3][: fabric.rank_count]
        say(f"rank {fabric.rank}: {check_layer(fabric, counts) and check_layer(fabric, counts, 'copies=rank')}")


def deepep():
    from test_deepep import check_calls, torch

    with crosspoint.world() as fabric:
        counts = [7, 0, 30, 3][: fabric.rank_count]
        say(f"rank {fabric.rank}: {all(check_calls(fabric, counts, t) for t in (torch.float32, torch.bfloat16))}")


def gloo():
    """The processes of MPI as those of torch.distributed, in the opposite order."""
    import socket

    import torch.distributed
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = world.bcast(probe.getsockname()[1])
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=world.size - 1 - world.rank, world_size=world.size
    )
    return torch.distributed


def deepep_groups():
    from test_deepep import Buffer, check_calls, send, tokens_of

    distributed = gloo()
    everyone = distributed.group.WORLD
    pairs = [distributed.new_group([0, 1]), distributed.new_group([2, 3])]
    rank = distributed.get_rank()
    pair = pairs[rank // 2]
    checks = check_calls(everyone, [4, 0, 9, 2]) and check_calls(pair, [3, 8])
    # Their calls take turns.
    x, indices, weights = tokens_of(rank, 5, 4)
    buffers = Buffer(everyone), Buffer(pair)
    sent = [send(buffer, x, indices, weights, 4) for buffer in buffers]
    back = [buffer.combine(one[0], one[4])[0] for buffer, one in zip(buffers, sent)]
    for buffer, y in zip(buffers, back):
        checks = checks and y.allclose(x * buffer.get_dispatch_layout(indices, 4)[3].sum(dim=1, keepdim=True))
    say(f"rank {rank}: {checks}")
    distributed.destroy_process_group()


def step_of(binding, fabric):
    """A step of a layer through a binding."""
    if binding == "deepep":
        from test_deepep import Buffer, send, tokens_of

        buffer = Buffer(fabric)

        def step():
            recv_x, _, _, _, handle, _ = send(buffer, *tokens_of(fabric.rank, 3, 4), 4)
            buffer.combine(recv_x, handle)

        return step
    if binding == "torchtitan":
        from test_torchtitan import Mesh, check_dispatcher

        return lambda: check_dispatcher(Mesh(fabric), fabric.rank, [2] * fabric.rank_count)
    if binding == "torch":
        from test_torch import check_layer
    elif binding == "megatron":
        from test_megatron import check_layer
    else:
        from test_jax import check_layer
    return lambda: check_layer(fabric, [2] * fabric.rank_count)


def raises_in(binding):
    with crosspoint.world() as fabric:
        step = step_of(binding, fabric)
        step()
        if fabric.rank == 1:
            raise ValueError("the data are at an end")
        step()


def waits_in(binding):
    """The last rank never comes."""
    with crosspoint.world() as fabric:
        step = step_of(binding, fabric)
        say(f"ready {fabric.rank} {os.getpid()}")
        if fabric.rank == fabric.rank_count - 1:
            time.sleep(60)
        step()


def two_communicators_in(binding):
    """Layers over all three ranks and over two or one of them; their transfers take turns, forward and backward."""
    import torch
    from mpi4py import MPI
    from test_bindings import transfers_of
    from test_torch import route, tokens_of

    some = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank % 2)
    with Fabric.of(MPI.COMM_WORLD) as whole, Fabric.of(some, messages_only=True) as part:
        layers = [transfers_of(binding, fabric) for fabric in (whole, part)]
        counts = [[9, 0, 4][whole.rank], 3 + whole.rank]
        given = [tokens_of(fabric.rank, count) for fabric, count in zip((whole, part), counts)]
        for _ in range(2):
            sent = [send(x, logits) for (send, _), (x, logits, _) in zip(layers, given)]
            found = [bring(rows) for (_, bring), rows in zip(layers, sent)]
            torch.autograd.backward(found, [dy for _, _, dy in given])
        for y, (x, logits, dy) in zip(found, given):
            total = route(logits)[1].sum(dim=1, keepdim=True)
            torch.testing.assert_close(y, total * x)
            torch.testing.assert_close(x.grad, 2 * total * dy)
        say(f"rank {whole.rank}: True")


def torchtitan():
    from test_torchtitan import check_dispatcher

    distributed = gloo()
    from torch.distributed.device_mesh import init_device_mesh

    # Experts are spread over one dimension of two; the other serves as a second mesh, at once.
    mesh = init_device_mesh("cpu", (distributed.get_world_size() // 2, 2), mesh_dim_names=("dp", "ep"))
    for name in ("ep", "dp", "ep"):
        check_dispatcher(mesh[name], mesh[name].get_local_rank(), [7, 0][: mesh[name].size()])
    say(f"rank {distributed.get_rank()}: True")
    distributed.destroy_process_group()


def megatron():
    """A layer of Megatron-Core with its own dispatcher, and then with ours. Its router needs a GPU; its dispatcher takes the CPU
    where that is said to be the device."""
    import torch

    distributed = gloo()
    from megatron.core import parallel_state
    from megatron.core.models.gpt.moe_module_specs import get_moe_module_spec
    from megatron.core.transformer.moe.moe_layer import MoELayer
    from megatron.core.transformer.transformer_config import TransformerConfig

    from crosspoint.megatron import CrosspointTokenDispatcher, use_crosspoint

    class Router(torch.nn.Linear):
        def __init__(self, config, pg_collection):
            super().__init__(config.hidden_size, config.num_moe_experts)
            self.top_k = config.moe_router_topk

        def forward(self, hidden, padding_mask=None):
            logits = super().forward(hidden.reshape(-1, hidden.shape[-1]))
            weights, experts = logits.softmax(dim=1).topk(self.top_k)
            routing_map = torch.zeros_like(logits, dtype=torch.bool).scatter(1, experts, True)
            return torch.zeros_like(logits).scatter(1, experts, weights), routing_map

    torch.cuda.current_device = lambda: "cpu"
    rank, size = distributed.get_rank(), distributed.get_world_size()
    parallel_state.initialize_model_parallel(expert_model_parallel_size=size)
    config = TransformerConfig(
        num_layers=1, hidden_size=16, num_attention_heads=2, num_moe_experts=6, moe_router_topk=2, moe_ffn_hidden_size=24,
        moe_token_dispatcher_type="allgather", moe_router_load_balancing_type="none", expert_model_parallel_size=size,
        add_bias_linear=False, use_cpu_initialization=True,
    )  # fmt: skip
    modules = get_moe_module_spec(use_te=False, num_experts=6).submodules
    modules.router = Router
    torch.manual_seed(rank)
    layer = MoELayer(config, modules, layer_number=1)
    x, dy = torch.randn(7, 3, 16, requires_grad=True), torch.randn(7, 3, 16)

    def step():
        layer.zero_grad()
        x.grad = None
        y, _ = layer(x)
        y.backward(dy)
        return [y, x.grad, *(parameter.grad for parameter in layer.parameters())]

    theirs = step()
    del torch.cuda.current_device
    assert use_crosspoint(layer) == 1 and isinstance(layer.token_dispatcher, CrosspointTokenDispatcher)
    for found, expected in zip(step(), theirs):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    say(f"rank {rank}: {len(theirs) > 4}")
    distributed.destroy_process_group()


def process_group():
    """A small model, its dense part copied and its experts spread over ranks, trained through this back end and Gloo's."""
    import datetime

    import torch
    import torch.distributed as dist
    from torch.distributed._functional_collectives import all_to_all_single_autograd

    import crosspoint.distributed  # noqa: F401

    dist.init_process_group("crosspoint", init_method="mpi://", timeout=datetime.timedelta(seconds=30))
    rank, size = dist.get_rank(), dist.get_world_size()
    everyone = list(range(size))
    groups = {name: dist.new_group(everyone, backend=name) for name in ("crosspoint", "gloo")}

    def losses(group):
        torch.manual_seed(0)
        gate = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, size, bias=False), process_group=group)
        torch.manual_seed(1 + rank)
        expert = torch.nn.Linear(8, 8)
        optimizer = torch.optim.SGD([*gate.parameters(), *expert.parameters()], lr=0.1)
        seen = []
        for _ in range(8):
            x = torch.randn(5 + 3 * rank, 8)
            scores, chosen = gate(x).softmax(dim=1).max(dim=1)
            order = chosen.argsort(stable=True)
            to = torch.bincount(chosen, minlength=size)
            come = torch.empty_like(to)
            dist.all_to_all_single(come, to, group=group)
            rows = all_to_all_single_autograd(x[order], come.tolist(), to.tolist(), group)
            home = all_to_all_single_autograd(expert(rows), to.tolist(), come.tolist(), group)
            y = torch.empty_like(home).index_copy(0, order, home) * scores[:, None]
            loss = (y - x.roll(1, 1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total = loss.detach().clone()
            dist.all_reduce(total, group=group)
            seen.append(total)
        return torch.stack(seen)

    ours, theirs = (losses(group) for group in groups.values())
    told = [None] * size
    dist.all_gather_object(told, {"rank": rank})
    pair = dist.new_group([size - 1, 0] if size > 1 else [0], backend="crosspoint")
    if dist.get_rank(pair) >= 0:
        x = torch.tensor([rank])
        dist.broadcast(x, src=size - 1, group=pair)
        assert x.item() == size - 1
    # Those of the pair and those of all ranks take turns.
    for turn in range(3):
        if dist.get_rank(pair) >= 0:
            x = torch.tensor([rank + turn])
            dist.all_reduce(x, group=pair)
            assert x.item() == (size - 1 + 2 * turn if size > 1 else turn)
        x = torch.tensor([rank + turn])
        dist.all_reduce(x)
        assert x.item() == sum(everyone) + size * turn
    say(ours.allclose(theirs, rtol=1e-4) and ours[-1] < ours[0] and told == [{"rank": r} for r in everyone])
    dist.destroy_process_group()


def lost_in_process_group(how, timeout):
    """Rank 1 takes no part any more."""
    import datetime

    import torch
    import torch.distributed as dist

    import crosspoint.distributed  # noqa: F401

    dist.init_process_group("crosspoint", init_method="mpi://", timeout=datetime.timedelta(seconds=float(timeout)))
    dist.all_reduce(torch.ones(3))
    say(f"ready {dist.get_rank()} {os.getpid()}")
    if dist.get_rank() == 1:
        if how == "raises":
            raise ValueError("the data are at an end")
        time.sleep(60)
    try:
        dist.barrier()
    except CrosspointError as error:
        say(f"rank {dist.get_rank()}: {error.code.name} {error.rank}")
        raise


def without_mpirun(rank, port):
    import torch.distributed

    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(rank), world_size=2)
    try:
        Fabric.of(torch.distributed.group.WORLD)
    except CrosspointError as error:
        say(error.message)


def jax_layer():
    from mpi4py import MPI
    from test_jax import check_layer, check_two_fabrics

    half = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank % 2)
    counts = [7, 0, 30, 3]
    with Fabric.of(MPI.COMM_WORLD) as fabric, Fabric.of(half) as part:
        checks = [check_layer(f, counts[: f.rank_count], o) for f, o in ((fabric, ""), (part, ""), (fabric, "copies=rank"))]
        say(f"rank {fabric.rank}: {all(checks) and check_two_fabrics(fabric, part)}")


def jax_refused():
    import jax
    import jax.numpy as jnp
    from test_jax import EXPERTS, HIDDEN, arguments_of, check_layer, ep_dispatch

    with crosspoint.world() as fabric:
        exchange = Exchange(fabric, experts=EXPERTS, hidden=HIDDEN)
        x, scores, experts, _ = arguments_of(fabric.rank, 4)
        if fabric.rank == 1:
            x, experts = x.at[0].set(jnp.nan), experts.at[0].set(1)
        try:
            jax.block_until_ready(jax.jit(lambda x: ep_dispatch(exchange, experts, x, scores))(x))
        except jax.errors.JaxRuntimeError as error:
            say(error)
        say(check_layer(fabric, [3, 4]))
        # Nobody waits for this one before the fabric ends.
        jax.jit(lambda x: ep_dispatch(exchange, experts, x, scores))(jnp.zeros_like(x))


def other_things():
    try:
        Fabric.of(0)
    except CrosspointError as error:
        say(f"{error.code.name} {error.message}")
    from mpi4py import MPI  # noqa: F401

    for thing in ("world", 3.5, 1 << 20, 1 << 40):
        try:
            Fabric.of(thing)
        except CrosspointError as error:
            say(f"{error.code.name} {error.argument} {error.message}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
