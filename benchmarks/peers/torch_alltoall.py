#!/usr/bin/env python3
"""Times a layer's transfers in PyTorch: crosspoint.torch beside torch.distributed.all_to_all_single over Gloo.

  launch/mpirun -n 2 python benchmarks/peers/torch_alltoall.py
  launch/mpirun -n 4 python benchmarks/peers/torch_alltoall.py --tokens 4096 --json torch.json

Both route the same tokens to the same experts, which change nothing, and run forward and backward through autograd, by turns,
in the same processes. The peer does what a careful user does: sorts (token, choice) pairs by expert, tells counts, sends rows
in one all_to_all_single each way, groups what arrived by expert, and sums weighted outputs. What comes out is compared bit for
bit (weights are powers of two, so that a fused multiplication rounds as a separate one).

Columns: least and median over iterations of the slowest rank's time; ratio of the least, and median of the ratios by
iteration: below 1 crosspoint is faster. The first iterations (--warmup) are not counted.
Needs: the Python package, mpi4py, PyTorch's CPU build.
"""
import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.distributed as dist
from mpi4py import MPI
from torch.distributed._functional_collectives import all_to_all_single_autograd

import crosspoint.distributed  # noqa: F401
from crosspoint import Exchange, Fabric
from crosspoint.torch import combine, dispatch

world = MPI.COMM_WORLD


class Gloo:
    """Dispatch and combine over all_to_all_single.

    :param compute: what the experts of this rank make of their rows, given also how many are for each.
    """

    name = "torch all_to_all_single, Gloo"

    def __init__(self, experts, compute=lambda rows, counts: rows):
        if not dist.is_initialized():
            dist.init_process_group("gloo", init_method="mpi://")
        self.experts, self.local, self.compute = experts, experts // world.size, compute

    def step(self, x, experts, weights):
        tokens, top_k = experts.shape
        # Sorted by expert, which is by rank; a pair's row is at inverse[pair].
        order = experts.reshape(-1).argsort(stable=True)
        sent = torch.bincount(experts.reshape(-1), minlength=self.experts)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        to = sent.view(world.size, -1).sum(dim=1).tolist()
        of = received.view(world.size, -1).sum(dim=1).tolist()
        rows = all_to_all_single_autograd(x[order // top_k], of, to, dist.group.WORLD)
        # From (source, expert) to (expert, source).
        groups = torch.arange(world.size * self.local).view(world.size, self.local)
        group = groups.reshape(-1).repeat_interleave(received)
        by_expert = (group % self.local * world.size + group // self.local).argsort(stable=True)
        outputs = self.compute(rows[by_expert], received.view(world.size, self.local).sum(dim=0).tolist())
        back = torch.empty_like(outputs).index_copy(0, by_expert, outputs)
        home = all_to_all_single_autograd(back, to, of, dist.group.WORLD)
        inverse = torch.empty_like(order).index_copy(0, order, torch.arange(len(order)))
        pairs = home[inverse].view(tokens, top_k, -1)
        return (pairs * weights[:, :, None]).sum(dim=1), outputs


class Crosspoint:
    name = "crosspoint.torch"

    def __init__(self, experts, hidden, options):
        self.fabric = Fabric.of(world)
        self.exchange = Exchange(self.fabric, experts=experts, hidden=hidden, options=options)

    def step(self, x, experts, weights):
        dispatched = dispatch(self.exchange, x, experts, weights)
        return combine(dispatched, dispatched.rows), dispatched.rows


def run(implementation, x, experts, weights, dy):
    """One step, and its seconds forward and backward on the slowest rank."""
    for tensor in (x, weights):
        tensor.grad = None
    world.Barrier()
    times = [time.perf_counter()]
    y, rows = implementation.step(x, experts, weights)
    times.append(time.perf_counter())
    y.backward(dy)
    times.append(time.perf_counter())
    seconds = np.diff(times + [times[0]])[:2]
    both = np.array([*seconds, seconds.sum()])
    world.Allreduce(MPI.IN_PLACE, both, MPI.MAX)
    return both, (y.detach(), rows.detach(), x.grad, weights.grad)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=1024, help="per rank")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--experts", type=int, default=16, help="over all ranks, which must divide it")
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--options", default="", help="of the exchange; others than the default lose bits")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.experts % world.size:
        parser.error(f"{world.size} ranks do not divide {arguments.experts} experts")
    torch.set_num_threads(1)
    torch.manual_seed(world.rank)
    shape = (arguments.tokens, arguments.hidden)
    x, dy = torch.randn(shape, requires_grad=True), torch.randn(shape)
    experts = torch.rand(arguments.tokens, arguments.experts).topk(arguments.top_k).indices
    weights = torch.full(experts.shape, 0.5, requires_grad=True)

    both = [Crosspoint(arguments.experts, arguments.hidden, arguments.options), Gloo(arguments.experts)]
    seconds, wrong = [], 0
    for iteration in range(arguments.warmup + arguments.iterations):
        turns = both if iteration % 2 == 0 else both[::-1]
        found = {implementation.name: run(implementation, x, experts, weights, dy) for implementation in turns}
        ours, theirs = (found[implementation.name] for implementation in both)
        # The gradients of weights are inner products, whose sums have an order: they are near.
        wrong += sum(int((a != b).sum()) for a, b in zip(ours[1][:3], theirs[1][:3]))
        wrong += int((~torch.isclose(ours[1][3], theirs[1][3], rtol=1e-3, atol=1e-3)).sum())
        if iteration >= arguments.warmup:
            seconds.append((ours[0], theirs[0]))
    wrong = world.allreduce(wrong)
    times = np.array(seconds)
    ratios = np.median(times[:, 0] / times[:, 1], axis=0)
    if world.rank == 0:
        print(
            f"# {world.size} ranks, {arguments.tokens} tokens per rank, hidden {arguments.hidden}, top-{arguments.top_k}, "
            f"{arguments.experts} experts, {arguments.iterations} iterations by turns"
        )
        print(f"{'':32}{'forward (ms)':>18}{'backward (ms)':>18}{'both (ms)':>18}")
        least, medians = times.min(axis=0) * 1e3, np.median(times, axis=0) * 1e3
        for index, implementation in enumerate(both):
            cells = (f"{low:8.2f} /{middle:8.2f}" for low, middle in zip(least[index], medians[index]))
            print(f"{implementation.name:32}" + "".join(cells))
        cells = (f"{low:8.3f} /{middle:8.3f}" for low, middle in zip(least[0] / least[1], ratios))
        print(f"{'ratio':32}" + "".join(cells))
        print(f"values that differ: {wrong}")
        if arguments.json:
            record = vars(arguments) | {"ranks": world.size, "wrong": wrong}
            record |= {"least": (least[0] / least[1]).tolist(), "median": ratios.tolist()}
            record["ratios"] = (times[:, 0] / times[:, 1])[:, 2].tolist()
            with open(arguments.json, "w") as file:
                json.dump(record, file)
    dist.destroy_process_group()
    both[0].fabric.finalize()
    if wrong and not arguments.options:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
