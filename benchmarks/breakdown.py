"""Where the time of a step goes on a CPU: ours as XLA compiled it, and PyTorch's of the same shape, by kind of work.

    pip install -e '.[bench]'
    python benchmarks/breakdown.py

traces steps on one core, so that nothing runs beside anything else, of all programs in turns, and adds up what every
operation took in its median step. Says also which share of the machine's matrix rate the products reach. The networks are those of
`benchmarks/pretrain_step.py`; PyTorch's is eager and, where there is a compiler for C++, compiled.
"""

import dataclasses
import glob
import os
import re
import shutil
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks import extra
from weight_templates import cli
from weight_templates.config import Family
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Tell where the time of a step goes, on one core of a CPU."""

    batch: int = 64
    """Images a step."""
    steps: int = 9
    """Steps that are traced of each program."""
    families: tuple[Family, ...] = ("none", "tucker")
    """Families to trace, at full width."""


WARM = 3
"""Turns before those that count: until each program has the memory that it keeps, products take up to half as long again."""
KINDS = (
    "products",
    "attention",
    "feed-forward",
    "norms",
    "copies and transposes",
    "loops' stores",
    "expansion",
    "optimiser",
    "rest",
)


def main(config: Config) -> None:
    """Prints a table in Markdown."""
    if config.batch < 1 or config.steps < 1 or not config.families:
        raise UserError("--batch, --steps and --families need to be at least 1.")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["JAX_PLATFORMS"] = "cpu"
    extra.torch().set_num_threads(1)
    import jax

    # A program from the cache has the names of whoever compiled it, perhaps before a scope had its name.
    jax.config.update("jax_enable_compilation_cache", False)

    from benchmarks.flops import matrix_rate
    from benchmarks.pretrain_step import SIZES
    from weight_templates.counting import count_mae

    vit, decoder = SIZES["small"]
    tracers: dict[str, Tracer] = {family: our_tracer(family, config) for family in config.families}
    tracers["torch"] = torch_tracer(config, compiled=False)
    if shutil.which("c++"):
        tracers["torch, compiled"] = torch_tracer(config, compiled=True)
    turns = {name: [] for name in tracers}
    for turn in range(WARM + config.steps):
        for name in list(tracers) if turn % 2 else list(tracers)[::-1]:
            turns[name].append(tracers[name]())
    found = {name: summed(own[WARM:]) for name, own in turns.items()}
    columns = " | ".join(f"{name}, ms | share" for name in found)
    print(f"| | {columns} |\n|---{'|---' * (2 * len(found))}|")
    for kind in KINDS:
        cells = [f"{1e3 * spent[kind]:.0f} | {spent[kind] / sum(spent.values()):.0%}" for spent in found.values()]
        print(f"| {kind} | {' | '.join(cells)} |")
    print(f"| sum | {' | '.join(f'{1e3 * sum(spent.values()):.0f} | 100%' for spent in found.values())} |")
    flops, rate = 3 * count_mae(vit, decoder) * config.batch, matrix_rate(1536, "float32")
    reached = [
        f"{flops / spent['products'] / rate:.0%} | {flops / sum(spent.values()) / rate:.0%}" for spent in found.values()
    ]
    print(f"| of the matrix rate: the products, the whole step | {' | '.join(reached)} |")
    print(f"\nMatrix rate, 1536 by 1536, float32, one core: {rate / 1e9:.0f} GFLOP/s.")


Tracer = Callable[[], dict[str, tuple[str, float]]]
"""Takes a step; the kind of every operation, and the seconds that it took."""


def our_tracer(family: Family, config: Config) -> Tracer:
    """The parts of a step of ours."""
    import jax
    import jax.random as jr

    from benchmarks import steps
    from benchmarks.pretrain_step import SIZES
    from weight_templates import scaling
    from weight_templates.config import ScalingOptions

    vit, decoder = SIZES["small"]
    model = steps.auto_encoder(family, vit, decoder)
    make, state, data = steps.begin(model, constrained.trainable(model), config.batch)
    program: Any = make(scaling.preparation(ScalingOptions("off"), vit, family, "float32"))
    program = program.lower(state, data, jr.key(2)).compile()
    kinds = {name: kind for name, rest in operations(program.as_text()) if (kind := kind_of(name, rest))}

    def trace() -> dict[str, tuple[str, float]]:
        nonlocal state
        took = dict.fromkeys(kinds, 0.0)
        with tempfile.TemporaryDirectory() as folder:
            state = jax.block_until_ready(program(state, data, jr.key(2)))  # after the others' turns, caches are cold
            with jax.profiler.trace(folder):
                state = jax.block_until_ready(program(state, data, jr.key(2)))
            (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
            for plane in jax.profiler.ProfileData.from_file(path).planes:
                for event in (event for line in plane.lines for event in line.events):
                    if event.name in kinds:
                        took[event.name] += event.duration_ns / 1e9
        return {name: (kinds[name], seconds) for name, seconds in took.items()}

    return trace


def summed(turns: list[dict[str, tuple[str, float]]]) -> dict[str, float]:
    """Seconds of a step by kind, from what every operation took in each turn: of each its median."""
    spent: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for name in {name for turn in turns for name in turn}:
        (kind,) = {turn[name][0] for turn in turns if name in turn}
        spent[kind] += statistics.median(turn[name][1] if name in turn else 0.0 for turn in turns)
    return spent


def operations(program: str) -> list[tuple[str, str]]:
    """Names of a compiled program's operations, and what is written of each."""
    return re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$", program, re.MULTILINE)


SCOPES = {"project": "products", "attention": "attention", "mlp": "feed-forward", "norm": "norms"}
"""Kinds of work by the scopes that `weight_templates.nn` names; the first that holds."""
MOVES = r"(copy|transpose|concatenate|slice|pad|bitcast_(copy|concatenate|slice|pad))"


def kind_of(name: str, rest: str) -> str | None:
    """The kind of an operation by its name, what it computes, and the scope it comes from; None if it holds others."""
    opcode = re.match(r"(?:\(.*?\)|\S+) ([\w\-]+)\(", rest)
    if opcode is None or opcode[1] in ("while", "call", "conditional", "parameter", "constant"):
        return None
    found = re.search(r'op_name="([^"]*)"', rest)
    scope = found[1] if found else ""
    if re.search(r"dynamic-(update-)?slice", name) or re.match(r"(wrapped_)?broadcast", name):
        return "loops' stores"  # of activations, for the backward pass; a loop's store begins as zeros
    if re.match(MOVES, name):
        return "copies and transposes"
    if re.search(r"\bexpand\b", scope):
        return "expansion"  # and its gradient
    if "jvp(" not in scope:
        return "optimiser"
    if opcode[1] == "dot" and "->" not in scope:
        return "products"  # the gradients of weights; attention's own products are written with arrows
    return next((kind for part, kind in SCOPES.items() if re.search(rf"\b{part}\b", scope)), "rest")


def torch_tracer(config: Config, *, compiled: bool) -> Tracer:
    """The parts of PyTorch's step. In a compiled one, fused kernels are told by the operators in their names."""
    import torch._inductor.config
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.pretrain_step import SIZES
    from benchmarks.torch_mae import torch_step

    torch._inductor.config.cpp.enable_kernel_profile = True  # else compiled kernels leave no events
    step = torch_step(*SIZES["small"], config.batch, "float32", compiled=compiled)
    step()  # which compiles
    kinds = {
        r"aten::(mm|addmm|bmm)$": "products",
        r"attention|fused.*_neg_": "attention",  # in one kernel with the rotations of q and k
        r"silu": "feed-forward",
        r"aten::(pow|mean|rsqrt)|powbackward|fused.*_pow_": "norms",
        r"adam": "optimiser",
        r"aten::(copy_|cat|clone|gather|scatter)": "copies and transposes",
    }

    def kind_of(name: str) -> str:
        return next((kind for pattern, kind in kinds.items() if re.search(pattern, name.lower())), "rest")

    def trace() -> dict[str, tuple[str, float]]:
        step()
        with profile(activities=[ProfilerActivity.CPU]) as traced:
            step()
        took: dict[str, float] = {}
        for event in traced.events() or ():
            took[event.name] = took.get(event.name, 0.0) + event.self_cpu_time_total / 1e6
        return {name: (kind_of(name), seconds) for name, seconds in took.items()}

    return trace


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
