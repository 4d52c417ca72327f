"""Models of every size from a ViT-B bank, and a step of adaptation against a step of pre-training.

    python benchmarks/initialize.py > docs/results/initialize.md

The bank is ViT-B/16 under Tucker with random weights: time and memory do not depend on them. Every size is made once, in
a process that has never made one of that shape, so that tracing and compilation count; JAX's cache on disk is off. Memory is
the largest resident size of the process so far, Python and JAX included. See `benchmarks/README.md`.
"""

import dataclasses
import os
import platform
import resource
import shlex
import statistics
import sys
import time

from weight_templates import cli
from weight_templates.config import DecoderConfig, ViTConfig
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Time zero-shot initialisation at every size, and a step of adaptation."""

    depths: tuple[int, ...] = (3, 4, 5, 6, 12)
    """Layers; the sizes of SWEET's tables are among the defaults."""
    heads: tuple[int, ...] = (3, 4, 5, 6, 12)
    """Heads."""
    batch: int = 64
    """Images a step."""
    rounds: int = 7
    """Turns of the steps' timing."""


VIT_B = ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64)
DECODER = DecoderConfig(depth=8, width=512, heads=16)
SMALL = ViTConfig(depth=12, head_dim=16)
SMALL_DECODER = DecoderConfig(depth=2, width=96, heads=6)


def main(config: Config) -> None:
    """Prints the tables."""
    if config.rounds < 2:
        raise UserError(f"--rounds {config.rounds} gives no spread; give at least 2.")
    if config.batch < 1:
        raise UserError(f"--batch {config.batch} has no images; give at least 1.")
    if not config.depths or not config.heads or min(*config.depths, *config.heads) < 1:
        raise UserError("--depths and --heads need at least one value each, none below 1.")
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

    import jax

    jax.config.update("jax_compilation_cache_dir", None)
    import equinox as eqx
    import jax.random as jr

    import weight_templates as wt
    from benchmarks.interleave import compare
    from benchmarks.steps import adaptation_step, our_step
    from weight_templates import bank

    model = eqx.filter_jit(bank.build)(
        VIT_B, wt.Tucker(), "unified", "masked", dataclasses.asdict(DECODER), key=jr.key(0)
    )
    source = jax.block_until_ready(wt.Bank(model, "tucker", {}))
    before = peak()
    print(f"""# Any size from a ViT-B bank

Made by `{shlex.join(["python", "benchmarks/initialize.py", *sys.argv[1:]])}`; nothing here is typed by hand. {platform.processor() or platform.machine()},
{os.cpu_count()} cores, {jax.devices()[0].device_kind}, JAX {jax.__version__}, Python {platform.python_version()}.

`wt.initialize` of every size, once each, in the order of the table, compilation included, and after it a network of that size with
random weights, likewise. The process held {before:.2f} GB before the first.

| layers | heads | parameters | seconds | of a random network's | peak memory so far, GB |
|---|---|---|---|---|---|""")
    slowest, ratios = 0.0, []
    for depth in config.depths:
        for heads in config.heads:
            cli.say(f"{depth} layers, {heads} heads")
            start = time.perf_counter()
            vit = jax.block_until_ready(wt.initialize(source, depth, heads))
            took = time.perf_counter() - start
            slowest = max(slowest, took)
            start = time.perf_counter()
            jax.block_until_ready(eqx.filter_jit(wt.ViT)(vit.config, key=jr.key(0)))
            ratios.append(took / (time.perf_counter() - start))
            print(
                f"| {depth} | {heads} | {wt.count(vit.config).parameters:,} | {took:.2f} | {ratios[-1]:.2f} | {peak():.2f} |",
                flush=True,
            )
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    print(
        f"\nSlowest: {slowest:.2f} s. Of a random network's time: {middle:.2f} (quartiles over the sizes {low:.2f}–{high:.2f}). "
        f"Largest memory: {peak():.2f} GB.\n"
    )

    sizes = [(12, 12), (6, 6), (3, 3)]
    tasks = {"pre-training": our_step("tucker", SMALL, SMALL_DECODER, config.batch)}
    tasks |= {
        f"adaptation, L{d}H{h}": adaptation_step("tucker", SMALL, SMALL_DECODER, config.batch, d, h) for d, h in sizes
    }
    print(f"""## A step of adaptation

Batch {config.batch}, float32; ViT-B in small (12 layers, 12 heads of 16 channels, 32 px) with its light decoder;
{config.rounds} turns. Pre-training has random widths; adaptation trains the scalers alone and has none.

| step | ms | of pre-training (quartiles), fastest |
|---|---|---|""")
    for name, t in compare(tasks, "pre-training", config.rounds).items():
        print(f"| {name} | {1000 * t.seconds:.0f} | {t.words} |")


def peak() -> float:
    """The process's largest resident size so far, GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
