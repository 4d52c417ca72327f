"""The products of a step alone: XLA's, as our layers ask for them, against PyTorch's, on one core and on all.

    pip install -e '.[bench]'
    python benchmarks/products.py

times, in turns, every product of a block of the small network with its tokens, forward and the two backward, in float32.
What one framework's products lose against the other's is no layer's doing, and shows here; what a second core brings to
either, too. The two numbers of cores have a process each, since both frameworks count cores when they start.
"""

import dataclasses
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import extra
from benchmarks.interleave import timing, turns
from weight_templates import cli
from weight_templates.errors import RunError, UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Time the products of a block against PyTorch's."""

    cores: int | None = None
    """Processor cores; default: one, and then all there are."""
    batch: int = 64
    """Images of a step."""
    rounds: int = 15
    """Turns."""


KINDS = ("forward", "gradient of tokens", "gradient of weight")


def main(config: Config) -> None:
    """Prints a table in Markdown for each number of cores."""
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    if config.batch < 1:
        raise UserError(f"--batch {config.batch} has no images; give at least 1.")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if config.cores is None:
        for count in sorted({1, len(cores)} if cores else {os.cpu_count() or 1}):
            again = [
                sys.executable,
                __file__,
                f"--cores={count}",
                f"--batch={config.batch}",
                f"--rounds={config.rounds}",
            ]
            if subprocess.run(again).returncode:
                raise RunError(f"the products on {count} core(s) could not be timed; see above.")
        return
    if cores and not 1 <= config.cores <= len(cores):
        raise UserError(f"--cores {config.cores} is not between 1 and the {len(cores)} there are.")
    if cores:
        os.sched_setaffinity(0, cores[: config.cores])
    os.environ["JAX_PLATFORMS"] = "cpu"
    extra.torch().set_num_threads(config.cores)
    from benchmarks.flops import matrix_rate

    rate = matrix_rate(1536, "float32") / 1e9
    print(
        f"{config.cores} core{'s' * (config.cores > 1)}, where a product of 1536 by 1536 reaches {rate:.0f} GFLOP/s:\n"
    )
    print("| weight | product | GFLOPs | ours, GFLOP/s | torch, GFLOP/s | time / torch's (quartiles), fastest |")
    print("|---|---|---|---|---|---|")
    timed(config)
    print(flush=True)


def timed(config: Config) -> None:
    """Prints the rows."""
    from benchmarks.flops import tokens
    from benchmarks.pretrain_step import SIZES

    vit, decoder = SIZES["small"]
    rows = config.batch * tokens(vit, decoder)
    width, hidden = vit.channels, 8 * (vit.inner // 3)
    shapes = {"qkv": (width, 3 * width), "out": (width, width), "enter": (width, 2 * hidden), "leave": (hidden, width)}
    every, total = dict[str, list[list[float]]](ours=[], torch=[]), 0
    for name, (columns, outputs) in shapes.items():
        ours, theirs = by_jax(rows, columns, outputs), by_torch(rows, columns, outputs)
        flops = 2 * rows * columns * outputs
        for kind in KINDS:
            times = turns({"ours": ours[kind], "torch": theirs[kind]}, config.rounds, dict.fromkeys(every, REPEATS))
            told(name, kind, flops, **times)
            for side, seconds in times.items():
                every[side].append(seconds)
            total += flops
    told(
        "all",
        "all",
        total,
        **{side: [math.fsum(turn) for turn in zip(*times, strict=True)] for side, times in every.items()},
    )


def told(name: str, kind: str, flops: int, ours: list[float], torch: list[float]) -> None:
    """Prints a row, from the seconds of every turn."""
    own = timing(ours, torch)
    rates = f"{flops / own.seconds / 1e9:.0f} | {flops / statistics.median(torch) / 1e9:.0f}"
    print(f"| {name} | {kind} | {flops / 1e9:.2f} | {rates} | {own.words} |", flush=True)


REPEATS = 12
"""Products in a turn: a block's, as often as there are layers."""


def by_jax(rows: int, columns: int, outputs: int) -> dict[str, Callable[[], Any]]:
    """What runs each product of ours, and waits."""
    import jax
    import jax.random as jr

    keys = jr.split(jr.key(0), 3)
    arrays = [jr.normal(key, shape) for key, shape in zip(keys, sizes(rows, columns, outputs), strict=True)]
    return {
        kind: lambda run=run: jax.block_until_ready([run(*arrays) for _ in range(REPEATS)])
        for kind, run in jax_products().items()
    }


def by_torch(rows: int, columns: int, outputs: int) -> dict[str, Callable[[], Any]]:
    """What runs each product of PyTorch's."""
    import torch

    arrays = [torch.randn(shape) for shape in sizes(rows, columns, outputs)]
    return {kind: lambda run=run: [run(*arrays) for _ in range(REPEATS)] for kind, run in torch_products().items()}


def jax_products() -> dict[str, Callable[..., Any]]:
    """The three products of tokens `x`, a weight `w` and a gradient `g`, as `weight_templates.nn` makes them."""
    import jax

    from weight_templates.nn.product import product

    made = (
        lambda x, w, g: product(x, w),
        lambda x, w, g: jax.vjp(lambda x: product(x, w), x)[1](g)[0],
        lambda x, w, g: jax.vjp(lambda w: product(x, w), w)[1](g)[0],
    )
    return dict(zip(KINDS, map(jax.jit, made), strict=True))


def torch_products() -> dict[str, Callable[..., Any]]:
    """The same in PyTorch, as its `linear` and the gradients of that have them."""
    import torch

    made = (lambda x, w, g: torch.mm(x, w.T), lambda x, w, g: torch.mm(g, w), lambda x, w, g: torch.mm(g.T, x))
    return dict(zip(KINDS, made, strict=True))


def sizes(rows: int, columns: int, outputs: int) -> tuple[tuple[int, int], ...]:
    """Shapes of the tokens, the weight, and the gradient of what comes out."""
    return (rows, columns), (outputs, columns), (rows, outputs)


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
