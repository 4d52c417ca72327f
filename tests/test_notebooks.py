"""The library on NumPy arrays: README's lines, and that they are the commands' calls."""

import dataclasses
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import weight_templates as wt
from experiments import pretrain
from weight_templates import trees
from weight_templates.config import OptimOptions, RunOptions
from weight_templates.errors import UserError

from .helpers import DECODER


NET = wt.ViTConfig(image=16, patch=4, depth=2, heads=4, head_dim=4)
FEW = OptimOptions(batch=8, steps=2)
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def made(rng):
    return rng.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8), np.arange(60) % 3


def test_lines_of_the_readme(made, tmp_path, monkeypatch):
    """Three lines, run as they stand, on a small network: the defaults of this test's module stand in for the library's."""
    lines = re.search(r"```python\n(?:import[^\n]*\n\n)?(bank = wt\.pretrain\(.*?)```", README.read_text(), re.S)
    assert lines
    monkeypatch.chdir(tmp_path)
    small = {"model": NET, "decoder": DECODER, "optim": FEW}
    few = {"optim": FEW}

    class Small:
        def __getattr__(self, name):
            own = getattr(wt, name)
            words = {"pretrain": small, "adapt": few, "finetune": few}.get(name)
            return own if words is None else lambda *args, **more: own(*args, **(words | more))

    space = {"wt": Small(), "images": made[0], "labels": made[1]}
    exec(lines.group(1), space)
    assert isinstance(space["model"], wt.Classifier)
    assert np.isfinite(np.asarray(space["model"](jnp.zeros((16, 16, 3))))).all()
    assert not list(tmp_path.iterdir())  # nothing is left where nothing was asked for


def test_the_call_of_the_commands(made, tmp_path):
    """The same images and options: the bank is the command's to the bit."""
    np.savez(tmp_path / "made.npz", images=made[0], labels=made[1])
    config = dataclasses.replace(
        pretrain.Config(), model=NET, decoder=DECODER, optim=FEW, run=RunOptions(root=str(tmp_path / "runs"))
    )
    config = dataclasses.replace(config, data=wt.DataOptions(str(tmp_path / "made.npz")))
    command = wt.load_bank(pretrain.main(config))
    ours = wt.pretrain(made[0], model=NET, decoder=DECODER, optim=FEW, out=str(tmp_path / "out"))
    for name, array in trees.named_arrays(command.model).items():
        np.testing.assert_array_equal(array, trees.named_arrays(ours.model)[name], err_msg=name)
    again = wt.pretrain(made[0], model=NET, decoder=DECODER, optim=FEW, out=str(tmp_path / "out"))
    assert command.sizes == again.sizes


def test_supervised_templates_of_a_convolutional_network(made):
    words = {"task": "classify", "backbone": "convnext", "optim": FEW}
    net = wt.ConvNextConfig(image=16, patch=4, depth=2, heads=4, head_dim=4, kernel=3)
    bank = wt.pretrain(*made, constraint="kronecker", model=net, **words)
    assert (bank.task, bank.family, len(bank.model.head.bias)) == ("classify", "kronecker", 3)
    small = wt.adapt(bank, *made, depth=1, heads=2, optim=FEW)
    model = wt.finetune(small, *made, test=made, optim=FEW)
    assert model.backbone.config == dataclasses.replace(net, depth=1, heads=2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"images": np.zeros((4, 16, 16, 5), np.uint8)}, "16 × 5"),
        ({"images": np.zeros((4, 16, 16, 3), np.float32)}, "uint8"),
        ({"images": "nowhere.npz"}, "nowhere.npz"),
        ({"task": "classify"}, "class"),
        ({"backbone": "convnext", "model": wt.ConvNextConfig(image=16)}, "--task classify"),
        ({"recipe": wt.RecipeOptions(mixup=0.3)}, "--recipe"),
    ],
)
def test_mistakes(words, says, made):
    words = {"images": made[0], "model": NET, "decoder": DECODER, "optim": FEW} | words
    with pytest.raises(UserError, match=says):
        wt.pretrain(words.pop("images"), **words)
