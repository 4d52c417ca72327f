"""Pre-trains weight templates under a constraint (SWEET §3, Eq. 6).

    python experiments/pretrain.py --constraint tucker
    python experiments/pretrain.py --preset small --constraint kronecker --task classify --data PATH

leaves a bank of templates, the loss curve and pictures at several widths in `runs/pretrain/…`. Without any other flag it
takes a small model and made-up images, and about two minutes on two CPU cores. `--preset small` is ViT-B in small (12
layers, 12 heads of 16 channels) for 32 to 64 px images; `--preset paper` is ViT-B/16 as SWEET trains it (ImageNet, 450
epochs of batch 1024). `--task masked` reconstructs hidden patches; `--task classify` learns from labels.

The same command goes on where it was stopped or killed.
"""

if __name__ == "__main__":  # before the imports, which take a second: Ctrl-C is heard meanwhile
    try:
        from weight_templates.entry import command
    except ModuleNotFoundError:
        raise SystemExit(
            "failed: this Python has no weight_templates; install it as README.md says, or call one that has it."
        ) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command("experiments.pretrain")

import dataclasses
from pathlib import Path
from typing import Literal

from weight_templates import cli
from weight_templates.config import (
    DecoderConfig,
    OptimOptions,
    Pretraining,
    RunOptions,
    ViTConfig,
    to_json,
)


@dataclasses.dataclass(frozen=True)
class Config(Pretraining):
    """Pre-train weight templates under a constraint."""

    preset: Literal["tiny", "small", "paper"] = "tiny"
    """Where all other values start from. tiny: minutes on a laptop. small: ViT-B in small. paper: ViT-B/16."""
    run: RunOptions = RunOptions()


PRESETS = {
    "tiny": Config(),
    "small": Config(
        preset="small",
        model=ViTConfig(depth=12, head_dim=16),
        decoder=DecoderConfig(depth=2, width=96, heads=6),
        optim=OptimOptions(base_lr=6e-4, batch=256, epochs=100),
    ),
    "paper": Config(
        preset="paper",
        model=ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64),
        decoder=DecoderConfig(depth=8, width=512, heads=16),
        optim=OptimOptions(batch=1024, epochs=450, warmup=40 / 450),
        run=RunOptions(log_every=100, save_every=2500),
    ),
}


def main(config: Config) -> Path:
    """Pre-trains as `config` says, going on from the last checkpoint if there is one.

    **Returns:** the path of the bank. Raises UserError for a mistake in `config`, RunError if the loss stops being
    finite.
    """
    check_options(config)
    from weight_templates import programs, training

    name = f"{config.constraint.family}-{Path(config.data.source).name}-{config.preset}"
    run = training.Run("pretrain", name, to_json(config), config.run, ("bank.safetensors",))
    made = run.path / "bank.safetensors"
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return made
    _, summary = programs.pretrain(config, run)
    run.finish(**summary)
    cli.say(f"next             python experiments/finetune.py {made} --data {config.data.source}")
    return made


def check_options(config: Config) -> None:
    """Raises UserError for what can be refused without JAX."""
    config.check(PRESETS[config.preset])
    config.run.check()


def check(config: Config) -> None:
    """Raises UserError for a mistake in `config`, and where there are not the images for a batch."""
    check_options(config)
    from weight_templates import programs

    programs.check_pretraining(config)


def cost(config: Config) -> float:
    """FLOPs of the whole run; raises UserError where there are no images."""
    from weight_templates import programs

    return programs.flops_of_pretraining(config)
