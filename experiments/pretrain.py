"""Pre-trains weight templates: a masked auto-encoder under a constraint (SWEET §3, Eq. 6).

    python experiments/pretrain.py --constraint tucker

leaves a bank of templates, the loss curve and reconstructions at several widths in `runs/pretrain/…`. Without any
other flag it takes a small model and made-up images, and about two minutes on two CPU cores. `--preset small` is ViT-B
in small (12 layers, 12 heads of 16 channels) for 32 to 64 px images; `--preset paper` is ViT-B/16 as SWEET trains it
(ImageNet, 450 epochs of batch 1024).

The same command goes on where it was stopped or killed.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from weight_templates import cli, launch
from weight_templates.config import (
    Application,
    ConstraintOptions,
    DataOptions,
    DecoderConfig,
    OptimOptions,
    RunOptions,
    ScalingOptions,
    ViTConfig,
    check_seed,
    to_json,
)
from weight_templates.files import expanded


@dataclasses.dataclass(frozen=True)
class Config:
    """Pre-train weight templates: a masked auto-encoder under a constraint."""

    preset: Literal["tiny", "small", "paper"] = "tiny"
    """Where all other values start from. tiny: minutes on a laptop. small: ViT-B in small. paper: ViT-B/16."""
    constraint: ConstraintOptions = ConstraintOptions()
    layout: Literal["unified", "components"] = "unified"
    """unified: one template for all matrices. components: one for each kind of matrix."""
    data: DataOptions = DataOptions()
    model: ViTConfig = ViTConfig(depth=6, head_dim=8)
    decoder: DecoderConfig = DecoderConfig(depth=1, width=64, heads=4)
    scaling: ScalingOptions = ScalingOptions()
    application: Application = "auto"
    """Of the constrained weights in a step. expanded: multiplied out first. factored: factor by factor (tucker), which is
    cheaper at low ranks. auto: expanded, unless that takes far more multiplications."""
    optim: OptimOptions = OptimOptions(base_lr=6e-3, batch=128, epochs=10)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward passes; auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always float32."""
    seed: int = 0
    """Of initialisation, order, augmentation and masks."""
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
    build = build_of(config)
    import equinox as eqx

    from weight_templates import bank, training

    family = config.constraint.family
    name = f"{family}-{Path(config.data.source).name}-{config.preset}"
    run = training.Run("pretrain", name, to_json(config), config.run)
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return run.path / "bank.safetensors"
    _, summary = learn(
        config,
        run,
        eqx.filter_jit(build),
        lambda m, about: bank.Bank(m, family, about),
        config.scaling,
        application=config.application,
    )
    run.finish(**summary)
    cli.say(
        f"next             python experiments/reconstruct.py {run.path / 'bank.safetensors'} "
        f"--data {config.data.source}"
    )
    return run.path / "bank.safetensors"


def build_of(config: Config) -> Callable[..., Any]:
    """From a `key` to the auto-encoder before training; raises UserError where `config` does not make one."""
    config.model.check()
    config.decoder.check(config.model)
    config.scaling.check(config.model, config.constraint.family)
    config.optim.check()
    config.run.check()
    check_seed(config.seed)

    # JAX from here on: the command line is parsed, and what can be refused without it is refused.
    import equinox as eqx
    import jax.random as jr

    from weight_templates import bank
    from weight_templates.constraints import constraint_of
    from weight_templates.layouts import LAYOUTS

    constraint, layout = constraint_of(config.constraint), LAYOUTS[config.layout]()
    build = eqx.Partial(bank.build, config.model, config.decoder, constraint, layout)
    # Ranks that do not fit are refused here, and the key made inside, so that no device is touched.
    eqx.filter_eval_shape(lambda: build(key=jr.key(0)))
    return build


def check(config: Config) -> None:
    """Raises UserError for a mistake in `config`, and where there are not the images for a batch."""
    from weight_templates import data

    build_of(config)
    images = data.open_source(config.data, config.model.image, config.seed)
    data.split(np.arange(len(images)), config.optim.batch, config.seed)


def cost(config: Config) -> float:
    """FLOPs of the whole run; raises UserError where there are no images."""
    from weight_templates import data, scaling

    optim, steps = config.optim, config.optim.steps
    if steps is None:
        images = len(data.open_source(config.data, config.model.image, config.seed))
        steps = optim.total(data.split(np.arange(images), optim.batch, config.seed).steps_per_epoch)
    scaled = scaling.settled(config.scaling, config.model, config.constraint.family, steps)
    return flops_of_image(config.model, config.decoder, scaled) * steps * optim.batch


def flops_of_image(model: ViTConfig, decoder: DecoderConfig, scaled: ScalingOptions) -> float:
    """FLOPs of one image in one step: of the whole width, or where it is computed sliced, of the mean over the widths."""
    from weight_templates.counting import count_mae
    from weight_templates.scaling import widths_of

    if scaled.execution != "sliced":
        return 3 * count_mae(model, decoder)
    drawn = widths_of(scaled, model)
    pairs = [(n, n) for n in drawn] if scaled.coupled else list(itertools.product(drawn, drawn))
    return 3 * sum(count_mae(model.resized(heads=r, columns=c), decoder) for r, c in pairs) / len(pairs)


def flops_of(bank: Any, path: str | Path) -> int | None:
    """FLOPs of the pre-training of a bank read from `path`, before any adaptation; None if neither it nor the run it lies
    in tells."""
    about, run = bank.about, expanded(path).with_name("config.json")
    while "pretraining" in about:
        about = about["pretraining"]
    if "flops" in about or about is not bank.about or not {"steps", "batch"} <= about.keys():
        return about.get("flops")
    try:
        scaled: dict[str, Any] = json.loads(run.read_text()).get("scaling", {}) if run.is_file() else {}
        scaled["heads"] = scaled.get("heads") and tuple(scaled["heads"])
        options = ScalingOptions(**scaled)
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # a run of other days, or not one of ours
    return round(flops_of_image(bank.config, bank.model.config, options) * about["steps"] * about["batch"])


def learn(
    config: Any,
    run: Any,
    initial: Callable[..., Any],
    bank_of: Callable[[Any, dict[str, Any]], Any],
    scaled: ScalingOptions,
    trainable: Callable[[Any], Any] | None = None,
    loss: Callable[..., Any] | None = None,
    auto_encoder: Callable[[Any], Any] = lambda model: model,
    application: Application = "auto",
) -> tuple[Any, dict[str, Any]]:
    """Trains a constrained auto-encoder, and leaves its bank and pictures in the run's directory.

    **Arguments:**

    - `config`: has `data`, `optim`, `precision`, `seed` and `run`, as `Config` has.
    - `initial`: from a `key` to the model before training.
    - `bank_of`: from the trained auto-encoder, and a note on data and steps, to its bank.
    - `scaled`: the stochastic scaling.
    - `trainable`: from the model to a tree of booleans, True at the leaves to train; default all.
    - `loss`: of a batch; default the reconstruction loss.
    - `auto_encoder`: from the model to the auto-encoder in it, if it holds more than that.
    - `application`: see `Config`.

    **Returns:** the bank, and the summary: steps, losses at several widths, sizes. Raises what `training.train` raises.
    """
    import equinox as eqx
    import jax.numpy as jnp
    import jax.random as jr

    from weight_templates import bank, data, pictures, scaling, training, trees
    from weight_templates.constrained import Widths, factoring, materialize
    from weight_templates.tasks import masked

    init_key, train_key, mask_key = jr.split(jr.key(config.seed), 3)
    optim = config.optim
    model = initial(key=init_key)
    vit, family = auto_encoder(model).encoder.config, bank_of(auto_encoder(model), {}).family
    loaded = data.load(data.open_source(config.data, vit.image, config.seed), config.data, cli.say)
    chosen = data.split(loaded.good, optim.batch, config.seed)
    mesh = training.data_mesh(config.run.devices, optim.batch, optim.microbatches)
    feed = data.feed_of(loaded, chosen, vit.image, config.data, training.share(mesh))
    views = jnp.asarray(data.evaluation_views(loaded, chosen.held_out, vit.image))
    steps = optim.total(chosen.steps_per_epoch)
    schedule = training.cosine(optim, steps)
    optimizer = training.adamw(optim, schedule)
    precision = training.precision_of(config.precision)

    @eqx.filter_jit
    def start(model):
        return training.init_state(model, (trainable or masked.trainable)(model), optimizer, optim.ema is not None)

    @eqx.filter_jit
    def evaluate(params, views, heads):
        model = trees.cast(materialize(auto_encoder(params), Widths(heads, heads)), precision)
        return masked.evaluate(model, views, chunk=min(len(views), 128), key=mask_key)

    def held_out_loss(state, heads):
        return float(evaluate(state.result, views, jnp.array(heads)))

    def judge(state):
        loss = held_out_loss(state, vit.heads)
        return loss, {"held_out_loss": loss}

    def make(prepare):
        return training.make_step(
            prepare, loss or masked.loss, optimizer, microbatches=optim.microbatches, ema=optim.ema
        )

    def ahead(done):
        return data.ahead(feed, done, steps)

    tokens = optim.batch // mesh.size * (int(vit.patches * (1 - auto_encoder(model).config.mask_ratio)) + 1)
    scaled = scaling.settled(scaled, vit, family, steps)
    factored = factoring(application, auto_encoder(model).encoder, tokens)
    if scaled.execution == "sliced":
        widths = scaling.drawn_widths(scaled, vit, steps, key=train_key)
        step, batches = scaling.sliced(make, ahead, widths, precision, factored)
    else:
        step, batches = make(scaling.preparation(scaled, vit, family, precision, factored)), ahead
    with run:
        state = training.train(
            run,
            training.Plan(steps, chosen.steps_per_epoch, optim.batch, evaluate_every=config.run.save_every),
            start(model),
            step,
            batches,
            judge,
            schedule=schedule,
            identity=f"{len(loaded.good)} images of {loaded.source.name}",
            mesh=mesh,
            key=train_key,
        )
        about = {"data": loaded.source.name, "images": len(chosen.train), "steps": steps, "batch": optim.batch}
        about |= {"base_lr": optim.base_lr, "scaling": scaled.scope_for(family)}
        if about["scaling"] != "off":
            about |= {"widths": list(scaling.widths_of(scaled, vit)), "coupled": scaled.coupled}
        about["flops"] = round(flops_of_image(vit, auto_encoder(model).config, scaled) * steps * optim.batch)
        made = bank_of(auto_encoder(state.result), about)
        metrics = training.read_metrics(run.path)
        shown = pictures.widths_to_show(vit.heads)
        if training.leads():
            bank.save_bank(run.path / "bank.safetensors", made)
            pictures.loss_curve(metrics, run.path / "loss.png", f"{family} on {loaded.source.name}")
            columns = pictures.widths_of(made.model, shown)
            pictures.reconstruction_grid(columns, views[:6], run.path / "reconstructions.png", key=mask_key)
        cli.say(
            f"bank             {run.path / 'bank.safetensors'}\n"
            f"loss curve       {run.path / 'loss.png'}\n"
            f"reconstructions  {run.path / 'reconstructions.png'}"
        )
        return made, {
            "steps": steps,
            "loss": [line["loss"] for line in metrics if "loss" in line][-1],
            "held_out_loss": {n: held_out_loss(state, n) for n in shown},
            "sizes": made.sizes,
        }


if __name__ == "__main__":
    launch.command("experiments.pretrain")
