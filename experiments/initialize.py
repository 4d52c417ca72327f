"""Initialises a plain model of any size from a bank, without any training (SWEET §3.4).

    python experiments/initialize.py BANK --depth 6 --heads 6 --out vit.safetensors
    python experiments/initialize.py BANK --depth 9 --heads 5 --format timm --out vit-timm.safetensors

The file is what `experiments/finetune.py` takes, `wt.load_model` reads and, by `--format`, timm or Hugging Face.
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
    command("experiments.initialize")

import dataclasses
import time
from pathlib import Path
from typing import Literal

import tyro

from weight_templates import cli
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Initialise a plain model of any size from a bank."""

    bank: tyro.conf.Positional[str] = ""
    """A bank.safetensors that pre-training wrote."""
    depth: int | None = None
    """Layers; default the bank's."""
    heads: int | None = None
    """Heads, and with them the width; default the bank's."""
    layers: Literal["first", "uniform", "interpolate"] = "first"
    """Which layers of the bank the layers are made of: the first ones, evenly spaced ones, or mixtures of neighbours.
    A deeper model than the bank's repeats them."""
    layout: Literal["unified", "components"] | None = None
    """Refuse a bank of another layout."""
    format: Literal["safetensors", "timm", "huggingface", "onnx"] = "safetensors"
    """Ours; the tensors of timm; a folder of Hugging Face's; or ONNX (extra: onnx). The two in the middle have networks
    of the plain dress only."""
    out: str = ""
    """File to write; for Hugging Face a folder."""
    overwrite: bool = False
    """Replace what is there."""


def main(config: Config) -> Path:
    """Writes the model and returns its path; raises UserError for a mistake in `config`."""
    if not config.bank:
        raise UserError("no bank was given; say `python experiments/initialize.py PATH/TO/bank.safetensors --depth 6`.")
    if not config.out:
        raise UserError("no place was given for the model; say where with --out, such as --out vit.safetensors.")

    import jax

    import weight_templates as wt
    from weight_templates import convert, trees

    bank = wt.load_bank(config.bank, config.layout)
    began = time.perf_counter()
    vit = jax.block_until_ready(wt.initialize(bank, config.depth, config.heads, config.layers))
    took = time.perf_counter() - began
    about = {"bank": bank.about, "layers": config.layers}
    convert.export_model(config.out, vit, config.format, about, overwrite=config.overwrite)
    shape = vit.config
    print(
        f"{shape.depth} layers, {shape.heads} heads, {shape.channels} channels, {trees.count(vit):,} parameters, "
        f"from {bank.config.depth} layers and {bank.config.heads} heads in {took:.2f} s"
    )
    cli.say(f"model            {config.out}")
    return Path(config.out)
