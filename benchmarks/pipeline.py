"""Images a second from the disk: our feed against Pillow alone and against PyTorch's loader.

    pip install -e '.[bench]'
    python benchmarks/pipeline.py

All decode the same JPEGs, made up for it. `ours` crops at random, resizes, flips, and puts batches on the device; `pillow`
only decodes and resizes, in as many threads: the floor. `torch` is a DataLoader with as many worker processes, which
crops, resizes and flips with Pillow.
"""

import concurrent.futures
import dataclasses
import io
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from weight_templates import cli
from weight_templates.config import DataOptions
from weight_templates.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Time decoding and augmentation."""

    images: int = 512
    """JPEGs."""
    side: int = 256
    """Their sides, pixels."""
    size: int = 224
    """Side of the network's input, pixels."""
    batch: int = 64
    """Images a batch."""
    rounds: int = 5
    """Turns."""


def main(config: Config) -> None:
    """Prints a table in Markdown."""
    if min(config.batch, config.side, config.size) < 1:
        raise UserError("--batch, --side and --size need to be at least 1.")
    if config.rounds < 2 or config.batch > config.images // 2:
        raise UserError("--rounds must be at least 2, and --images at least twice --batch.")
    import jax
    from jax.sharding import SingleDeviceSharding

    from benchmarks.interleave import compare
    from weight_templates import data

    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name) / "train" / "x", np.random.default_rng(0)
        folder.mkdir(parents=True)
        for number in range(config.images):
            small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            made = io.BytesIO()
            small.resize((config.side, config.side), Image.Resampling.BICUBIC).save(made, "JPEG", quality=90)
            (folder / f"{number}.jpg").write_bytes(made.getvalue())
        files = sorted(folder.iterdir())
        options = DataOptions(name, resident_mb=0, threads=threads)
        source = data.open_source(options, config.size, 0)
        loaded = data.Loaded(source, np.arange(config.images), None)
        chosen = data.split(loaded.good, config.batch, 0)
        feed = data.feed_of(loaded, chosen, config.size, options, SingleDeviceSharding(jax.devices()[0]))

        def ours() -> None:
            for batch in data.ahead(feed, 0, chosen.steps_per_epoch):
                jax.block_until_ready(batch)

        def decode(path: Path) -> np.ndarray:
            with Image.open(path) as image:
                return np.asarray(image.resize((config.size, config.size), Image.Resampling.BICUBIC))

        def pillow() -> None:
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                list(pool.map(decode, files))

        tasks = {"pillow": pillow, "ours": ours}
        units = {"pillow": config.images, "ours": chosen.steps_per_epoch * config.batch}
        try:
            tasks["torch"] = torch_loader(files, config, threads)
            units["torch"] = config.images // config.batch * config.batch
        except ImportError:
            cli.say("PyTorch is not installed, so its loader is left out; `pip install -e '.[bench]'` adds it.")
        print("| feed | images/s | time of an image / pillow's (quartiles), fastest |\n|---|---|---|")
        for name, t in compare(tasks, "pillow", config.rounds, units).items():
            print(f"| {name} | {1 / t.seconds:,.0f} | {t.words} |")


def torch_loader(files: list[Path], config: Config, workers: int):
    """A function that goes through the files once by a DataLoader."""
    import torch

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int):
            rng = np.random.default_rng(index)
            with Image.open(files[index]) as image:
                side = int(config.side * rng.uniform(0.2, 1) ** 0.5)
                x, y = rng.integers(0, config.side - side + 1, 2)
                box = (int(x), int(y), int(x) + side, int(y) + side)
                made = np.asarray(image.resize((config.size, config.size), Image.Resampling.BICUBIC, box))
            return torch.from_numpy(made[:, ::-1].copy() if rng.random() < 0.5 else made.copy())

    loader = torch.utils.data.DataLoader(
        Files(),
        config.batch,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
        multiprocessing_context="fork",
    )

    def run() -> None:
        for _ in loader:
            pass

    return run


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
