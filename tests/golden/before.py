"""Records what the commit eebe0dd trains, for `tests/test_trajectories.py`: the engine has been written anew since.

    git worktree add /tmp/before eebe0dd
    cd /tmp/before && PYTHONPATH=src:. JAX_PLATFORMS=cpu python …/tests/golden/before.py …/tests/golden/before

It is written for the functions of that commit, and runs in no other. It leaves

- `trajectories.json`: projections of all parameters after ten steps of pre-training, of adaptation and of fine-tuning, for
  every family and dress, computed in float64, where AdamW does not amplify the rounding of one processor;
- `tucker.safetensors`, `kronecker.safetensors` (a layout each), `model.safetensors`, `classifier.safetensors`: files that
  the commands wrote;
- `run/`: a run that was stopped after its first checkpoint, with `after.json`, projections of its bank when it had ended.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
from pathlib import Path


os.environ["JAX_ENABLE_X64"] = os.environ.get("JAX_ENABLE_X64", "0")
HERE = Path(__file__).parent


def projections(arrays):
    """Four sums of each array with fixed random weights, by name."""
    import numpy as np

    found = {}
    for name, array in arrays.items():
        flat = np.asarray(array, np.float64).reshape(-1)
        weights = np.random.Generator(np.random.PCG64(len(flat))).standard_normal((4, len(flat)))
        found[name] = [float(x) for x in weights @ flat / max(len(flat), 1) ** 0.5]
    return found


def trajectories():
    """Ten steps each, by family and dress."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np

    import weight_templates as wt
    from weight_templates import bank, inherit, scaling, training, trees
    from weight_templates.config import OptimOptions, RecipeOptions
    from weight_templates.layouts import LAYOUTS
    from weight_templates.models import Classifier
    from weight_templates.tasks import classify, masked

    jax.config.update("jax_enable_x64", True)
    optim = OptimOptions(base_lr=0.05, batch=8)
    schedule = training.cosine(optim, 10)
    rng = np.random.Generator(np.random.PCG64(0))
    images = jnp.asarray(rng.integers(0, 256, (10, 8, 16, 16, 3), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, 5, (10, 8), dtype=np.int32))

    def ten(model, trainable, loss, prepare, optimizer):
        model = jax.tree.map(lambda x: jnp.copy(x) if eqx.is_array(x) else x, trees.cast(model, jnp.float64))
        state = training.init_state(model, trainable, optimizer, ema=False)
        step = training.make_step(prepare, loss, optimizer, microbatches=2)
        for i in range(10):
            state = step(state, {"image": images[i], "label": labels[i]}, jr.key(3))
        return state.model

    def same(params, key):
        return params

    found = {}
    for dress in ("enhanced", "plain"):
        config = wt.ViTConfig(image=16, patch=4, depth=2, heads=4, head_dim=4, dress=dress)
        decoder = wt.DecoderConfig(depth=1, width=16, heads=2)
        for family in wt.FAMILIES:
            for layout in LAYOUTS:
                about = f"{family}-{dress}-{layout}"
                model = bank.build(config, decoder, wt.FAMILIES[family](), LAYOUTS[layout](), key=jr.key(1))
                scaled = wt.ScalingOptions(scope="submodel")
                prepare = scaling.preparation(scaled, config, family, "float64")
                model = ten(model, masked.trainable(model), masked.loss, prepare, training.adamw(optim, schedule))
                found[f"pretrain-{about}"] = projections(trees.named_arrays(model))
                made = wt.Bank(model, family, {})
                if family != "none":
                    adapted = inherit.adaptable(made, 3, 3, "interpolate")
                    adapted = ten(
                        adapted,
                        inherit.scalers_of(adapted, ("free",)),
                        masked.loss,
                        scaling.preparation(wt.ScalingOptions("off"), adapted.encoder.config, family, "float64"),
                        training.adamw(optim, schedule),
                    )
                    found[f"adapt-{about}"] = projections(trees.named_arrays(adapted))
                vit = trees.cast(wt.initialize(made, 3, 3, "uniform"), jnp.float64)
                classifier = trees.cast(Classifier(vit, 5, key=jr.key(2)), jnp.float64)
                recipe = RecipeOptions(layer_decay=0.75, drop_path=0.1, erasing=0.5)
                optimizer = training.adamw(optim, schedule, spared=("gain", "bias", "cls", "table"))
                optimizer = classify.scaled(optimizer, classify.layer_scales(classifier, 0.75))
                every = jax.tree.map(eqx.is_inexact_array, classifier)
                classifier = ten(classifier, every, classify.loss_of(recipe), same, optimizer)
                found[f"finetune-{about}"] = projections(trees.named_arrays(classifier))
                print(about, flush=True)
    return found


def small(out):
    """Four steps of pre-training under Tucker."""
    from experiments import pretrain
    from weight_templates.config import DataOptions, DecoderConfig, OptimOptions, RunOptions, ViTConfig

    return pretrain.Config(
        model=ViTConfig(image=16, patch=4, depth=2, heads=4, head_dim=4),
        decoder=DecoderConfig(depth=1, width=16, heads=2),
        data=DataOptions(count=64),
        optim=OptimOptions(batch=16, steps=4),
        run=RunOptions(root=str(out / "runs"), save_every=2, log_every=1),
    )


def files(out):
    """What the commands write."""
    import weight_templates as wt
    from experiments import finetune, initialize, pretrain
    from weight_templates import trees
    from weight_templates.config import ConstraintOptions, DataOptions, OptimOptions, RunOptions

    base = small(out)
    paths = {}
    for family, layout in (("tucker", "unified"), ("kronecker", "components")):
        config = dataclasses.replace(base, constraint=ConstraintOptions(family), layout=layout)
        paths[family] = pretrain.main(config)
        shutil.copy(paths[family], out / f"{family}.safetensors")
    initialize.main(
        initialize.Config(str(paths["tucker"]), depth=1, heads=2, out=str(out / "model.safetensors"), overwrite=True)
    )
    tuned = finetune.main(
        finetune.Config(
            str(out / "model.safetensors"),
            data=DataOptions(count=64),
            optim=OptimOptions(batch=16, steps=2),
            run=RunOptions(root=str(out / "runs")),
        )
    )
    shutil.copy(tuned, out / "classifier.safetensors")
    ended = wt.load_bank(paths["tucker"])
    (out / "after.json").write_text(json.dumps(projections(trees.named_arrays(ended.model))))
    shutil.rmtree(out / "runs")


def stopped(out):
    """A run that is asked to stop after its second step."""
    from experiments import pretrain
    from weight_templates.training import session

    fit = session.fit

    def stop(*args, every, **words):
        def ask(done, state):
            if done == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        return fit(*args, every=[(1, ask), *every], **words)

    session.fit = stop
    base = small(out)
    with contextlib.suppress(SystemExit):
        pretrain.main(dataclasses.replace(base, run=dataclasses.replace(base.run, out=str(out / "run"))))


if __name__ == "__main__":
    out = Path(sys.argv[1])
    if sys.argv[2:]:
        {"files": files, "stopped": stopped}[sys.argv[2]](out)
    else:
        (out / "trajectories.json").write_text(json.dumps(trajectories()))
