"""Reads a model, ours or of timm, MAE or Hugging Face, and writes it in another format.

    python experiments/export.py runs/finetune/…/model.safetensors --format timm --out vit-timm.safetensors
    python experiments/export.py mae_pretrain_vit_base.pth --out vit-b.safetensors

Models of the enhanced dress have no counterpart elsewhere: `docs/enhanced_vit.py` reads our own files in PyTorch.
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
    command("experiments.export")

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from weight_templates import cli
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Read a model, ours or another library's, and write it in another format."""

    model: tyro.conf.Positional[str] = ""
    """A model: ours, or .safetensors or .pth with the names of timm, MAE or Hugging Face (.pth: extra torch)."""
    format: Literal["safetensors", "timm", "huggingface", "onnx"] = "safetensors"
    """Ours; the tensors of timm; a folder of Hugging Face's; or ONNX (extra: onnx)."""
    out: str = ""
    """File to write; for Hugging Face a folder."""
    heads: int | None = None
    """Attention heads, where the file does not tell and its channels are not those of a well-known network."""
    image: int | None = None
    """Side of the input, pixels, if it shall be another; positions are resampled."""
    overwrite: bool = False
    """Replace what is there."""


def main(config: Config) -> Path:
    """Writes the model and returns its path; raises UserError for a mistake in `config`."""
    if not config.model:
        raise UserError("no model was given; say `python experiments/export.py PATH/TO/model.safetensors --out …`.")
    if not config.out:
        raise UserError("no place was given for the model; say where with --out, such as --out vit.safetensors.")

    import weight_templates as wt
    from weight_templates import convert, trees

    loaded = wt.load_model(config.model, heads=config.heads, image=config.image)
    convert.export_model(config.out, loaded.model, config.format, loaded.about, overwrite=config.overwrite)
    print(f"{trees.count(loaded.model):,} parameters")
    cli.say(f"model            {config.out}")
    return Path(config.out)
