#!/usr/bin/env python3
"""Trains one small language model in PyTorch twice: its tokens travel through crosspoint.torch, and through Gloo.

  launch/mpirun -n 2 python benchmarks/peers/torch_lm.py
  launch/mpirun -n 4 python benchmarks/peers/torch_lm.py --steps 200 --data book.txt --json lm.json

The model reads bytes: embedding, two blocks of causal attention and a mixture of experts, a projection. Both start from the
same values, see the same batches in the same order, and take steps by turns in the same processes. One's experts are
crosspoint.torch.ExpertParallel, its dense gradients are summed by Fabric.allreduce; the other's rows travel by
all_to_all_single, its dense gradients by all_reduce, both over Gloo. Sums over ranks have another order in the other, so that
losses may differ by rounding: more than 0.1 % at any step is an error.

Columns: the loss in bits per byte, mean over ranks; at the end the median step of the slowest rank, and the median of the
ratios by step: below 1 crosspoint is faster. The first steps (--warmup) are not counted.
Needs: the Python package, mpi4py, PyTorch's CPU build; the program bible of Debian's package bible-kjv, or --data.
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import subprocess
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch_alltoall import Gloo, world

from crosspoint import Fabric
from crosspoint.torch import ExpertParallel

HEADS = 4


def expert(width, inner):
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class GlooExperts(nn.Module):
    """The interface of ExpertParallel, over Gloo."""

    def __init__(self, experts, make):
        super().__init__()
        self.gloo = Gloo(experts, self.compute)
        first = world.rank * self.gloo.local
        self.experts = nn.ModuleList(make(number) for number in range(first, first + self.gloo.local))

    def compute(self, rows, counts):
        return torch.cat([expert(rows) for expert, rows in zip(self.experts, rows.split(counts))])

    def forward(self, tokens, experts, weights):
        return self.gloo.step(tokens, experts, weights)[0]


class Block(nn.Module):
    def __init__(self, width, experts, top_k, spread):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.router, self.top_k, self.moe = nn.Linear(width, experts, bias=False), top_k, spread

    def forward(self, x):
        batch, length, width = x.shape
        heads = self.mix(self.norms[0](x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2)
        x = x + self.out(attended.reshape(x.shape))
        tokens = self.norms[1](x).view(-1, width)
        weights, experts = self.router(tokens).softmax(dim=1).topk(self.top_k)
        return x + self.moe(tokens, experts, weights).view(x.shape)


class Model(nn.Module):
    """
    :param spread: makes the experts of a layer from a function that makes the expert of a number.
    :param reduce: sums a tensor over ranks, in place.
    """

    def __init__(self, arguments, spread, reduce):
        super().__init__()
        width = arguments.width

        def make(layer, number):
            with torch.random.fork_rng():
                torch.manual_seed(1 + layer * arguments.experts + number)
                return expert(width, arguments.expert_width)

        torch.manual_seed(0)
        self.embed, self.place = nn.Embedding(256, width), nn.Embedding(arguments.length, width)
        self.blocks = nn.ModuleList(
            Block(width, arguments.experts, arguments.top_k, spread(lambda number, layer=layer: make(layer, number), layer))
            for layer in range(2)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256)
        self.reduce = reduce
        self.dense = [parameter for name, parameter in self.named_parameters() if ".experts." not in name]
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)

    def forward(self, text):
        x = self.embed(text[:, :-1]) + self.place.weight
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), text[:, 1:].flatten())

    def step(self, text):
        """One step; the loss in bits per byte, and the slowest rank's seconds."""
        world.Barrier()
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = self(text)
        (loss / world.size).backward()
        flat = torch.cat([parameter.grad.flatten() for parameter in self.dense])
        self.reduce(flat)
        for parameter, gradient in zip(self.dense, flat.split([parameter.numel() for parameter in self.dense])):
            parameter.grad = gradient.view_as(parameter)
        self.optimizer.step()
        seconds = world.allreduce(time.perf_counter() - start, max)
        return world.allreduce(loss.item()) / world.size / math.log(2), seconds


def read(path):
    if path:
        return path.read_bytes()
    if not shutil.which("bible"):
        raise SystemExit("torch_lm.py: there is no program bible: apt-get install bible-kjv, or give a text with --data")
    return subprocess.run(["bible", "-f", "gen1:1-rev22:21"], capture_output=True, check=True).stdout


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, help="text to learn (default: the King James Bible)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="pieces of text per rank and step")
    parser.add_argument("--length", type=int, default=128, help="bytes of a piece")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--experts", type=int, default=16, help="of a block, over all ranks, which must divide it")
    parser.add_argument("--expert-width", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=4)
    parser.add_argument("--options", default="", help="of crosspoint's exchange; others than the default change the loss")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.experts % world.size:
        parser.error(f"{world.size} ranks do not divide {arguments.experts} experts")
    if not 0 <= arguments.warmup < arguments.steps:
        parser.error(f"--warmup: {arguments.warmup} of {arguments.steps} steps leave none to measure")
    torch.set_num_threads(1)
    text = torch.frombuffer(bytearray(read(arguments.data)), dtype=torch.uint8)

    fabric = Fabric.of(world)
    sizes = {"experts": arguments.experts, "hidden": arguments.width}
    models = {
        "crosspoint.torch": Model(
            arguments,
            lambda make, layer: ExpertParallel(fabric, **sizes, make=make, options=arguments.options, layer=layer),
            lambda flat: fabric.allreduce(flat.numpy()),
        ),
        "torch.distributed, Gloo": Model(arguments, lambda make, _: GlooExperts(arguments.experts, make), dist.all_reduce),
    }
    random = np.random.default_rng(world.rank)
    losses, seconds = [], []
    for step in range(arguments.steps):
        starts = random.integers(0, len(text) - arguments.length, arguments.batch)
        batch = torch.stack([text[start : start + arguments.length + 1] for start in starts]).long()
        names = list(models) if step % 2 == 0 else list(models)[::-1]
        found = {name: models[name].step(batch) for name in names}
        losses.append([found[name][0] for name in models])
        seconds.append([found[name][1] for name in models])
        if world.rank == 0 and (step % 20 == 0 or step == arguments.steps - 1):
            print(f"step {step:4}  " + "  ".join(f"{name}: {found[name][0]:.6f}" for name in models), flush=True)
    losses, seconds = np.array(losses), np.array(seconds[arguments.warmup :])
    apart = float((abs(losses[:, 0] - losses[:, 1]) / losses[:, 1]).max())
    ratio = float(np.median(seconds[:, 0] / seconds[:, 1]))
    if world.rank == 0:
        print(
            f"# {world.size} ranks, {arguments.batch * arguments.length} tokens per rank, width {arguments.width}, "
            f"top-{arguments.top_k} of {arguments.experts} experts of {arguments.expert_width}"
        )
        for name, middle in zip(models, np.median(seconds, axis=0)):
            print(f"{name:24} {1e3 * middle:8.1f} ms per step")
        print(f"ratio {ratio:.3f}; losses differ by at most {100 * apart:.5f} %")
        if arguments.json:
            record = vars(arguments) | {"data": str(arguments.data or ""), "ranks": world.size, "ratio": ratio}
            record |= {"losses": losses.tolist(), "apart": apart}
            with open(arguments.json, "w") as file:
                json.dump(record, file)
    dist.destroy_process_group()
    fabric.finalize()
    if apart > 1e-3 and not arguments.options:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
