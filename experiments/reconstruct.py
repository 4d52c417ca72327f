"""Draws what a bank's auto-encoder makes of images, at several widths, or those of several banks (SWEET's Figure 4).

    python experiments/reconstruct.py runs/pretrain/…/bank.safetensors --heads 3 6 9 12

writes `reconstructed.png` beside the bank, or where `--out` says, and prints the loss at every width. The images are those
of `--data`; many of them will have been trained on, unless `--data.split` says otherwise.
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
    command("experiments.reconstruct")

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from weight_templates import cli
from weight_templates.config import DataOptions
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Draw what a bank's auto-encoder makes of images, at several widths, or what several banks' do."""

    bank: tyro.conf.Positional[tuple[str, ...]] = ()
    """A bank.safetensors that pre-training wrote; or several for one kind of images, such as adapted ones."""
    data: DataOptions = DataOptions(count=64)
    heads: tuple[int, ...] = ()
    """Widths to draw of a single bank, in heads; default a quarter, a half, three quarters and all."""
    images: int = 6
    """How many images to draw."""
    out: str | None = None
    """The picture to write; default beside the bank."""
    seed: int = 0
    """Seed of the hidden patches, and of synthetic images."""


def main(config: Config) -> Path:
    """Writes the picture and returns its path; raises UserError for a mistake in `config`."""
    columns, losses = made(config)
    from weight_templates import pictures

    out = Path(config.out) if config.out else Path(config.bank[0]).with_name("reconstructed.png")
    pictures.save(pictures.grid(columns, losses), out)
    for title, loss in losses.items():
        print(f"{title:<9}  loss {loss:.4f}")
    cli.say(f"reconstructions  {out}")
    return out


def made(config: Config) -> tuple[dict[str, Any], dict[str, float]]:
    """The columns of the picture, and the losses over them; raises UserError for a mistake in `config`."""
    if not config.bank:
        raise UserError("no bank was given; say `python experiments/reconstruct.py PATH/TO/bank.safetensors`.")
    if config.images < 1:
        raise UserError(f"--images {config.images} leaves nothing to draw; give a positive number.")
    if config.out is not None and not (
        Path(config.out).suffix == ".png" and Path(config.out).absolute().parent.is_dir()
    ):
        raise UserError(f"--out {config.out} is not a .png in an existing folder.")

    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np

    from weight_templates import data, pictures
    from weight_templates.bank import load_bank
    from weight_templates.learning import at_width
    from weight_templates.tasks import masked

    banks = [load_bank(path) for path in config.bank]
    for path, bank in zip(config.bank, banks, strict=True):
        if bank.task != "masked":
            raise UserError(
                f"{path} was trained to {bank.task}, and reconstructs nothing; give a bank of --task masked."
            )
    size, patch, most = banks[0].config.image, banks[0].config.patch, banks[0].config.heads
    if len(banks) > 1:
        for path, bank in zip(config.bank, banks, strict=True):
            if (bank.config.image, bank.config.patch) != (size, patch):
                raise UserError(f"{path} is for other images or patches than {config.bank[0]}; draw them one by one.")
        if config.heads:
            raise UserError("--heads is for a single bank, but there are several; leave it out.")
        models = {f"L{b.config.depth} H{b.config.heads}": at_width(b.model, "float32") for b in banks}
    else:
        heads = list(config.heads) or pictures.widths_to_show(most)
        for count in heads:
            if not 1 <= count <= most:
                raise UserError(f"--heads {count} is not between 1 and the bank's {most} heads.")
        models = {pictures.title_of(n): at_width(banks[0].model, "float32", n) for n in heads}
    loaded = data.load(data.open_source(config.data, size, config.seed), config.data, cli.say)
    if not len(loaded.good):
        raise UserError(f"none of the images of {loaded.source.name} decodes; give --data other images.")
    chosen = loaded.good[:: max(1, len(loaded.good) // config.images)][: config.images]
    views = jnp.asarray(np.stack([data.evaluation_view(loaded.source.image(int(i)), size) for i in chosen]))
    return masked.reconstructions(models, views, key=jr.key(config.seed))
