"""Pre-trains weight templates: a masked auto-encoder under a constraint (SWEET §3, Eq. 6).

    python experiments/pretrain.py --constraint tucker

leaves a bank of templates, the loss curve and reconstructions at several widths in `runs/pretrain/…`. Without any
other flag it takes a small model and made-up images, and about two minutes on two CPU cores. `--preset small` is ViT-B
in small (12 layers, 12 heads of 16 channels) for 32 to 64 px images; `--preset paper` is ViT-B/16 as SWEET trains it
(ImageNet, 450 epochs of batch 1024).

The same command goes on where it was stopped or killed.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from weight_templates import cli
from weight_templates.config import (
    ConstraintOptions,
    DataOptions,
    DecoderConfig,
    OptimOptions,
    RunOptions,
    ScalingOptions,
    ViTConfig,
    to_json,
)
from weight_templates.errors import RunError, UserError


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
    config.model.check()
    config.decoder.check(config.model)
    config.scaling.check(config.model)
    config.optim.check()
    if not 0 <= config.seed < 2**32:
        raise UserError(f"--seed {config.seed} is not in [0, 2³²).")

    # JAX from here on: the command line is parsed, and what can be refused without it is refused.
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from weight_templates import bank, data, pictures, scaling, training, trees
    from weight_templates.constrained import Widths, materialize
    from weight_templates.constraints import constraint_of
    from weight_templates.layouts import LAYOUTS
    from weight_templates.tasks import masked

    constraint, layout = constraint_of(config.constraint), LAYOUTS[config.layout]()
    family, heads = config.constraint.family, config.model.heads
    build = eqx.Partial(bank.build, config.model, config.decoder, constraint, layout)
    eqx.filter_eval_shape(build, key=jr.key(0))  # ranks that do not fit are refused here
    name = f"{family}-{Path(config.data.source).name}-{config.preset}"
    run = training.Run("pretrain", name, to_json(config), config.run)
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return run.path / "bank.safetensors"

    loaded = data.load(data.open_source(config.data, config.model.image, config.seed), config.data, cli.say)
    chosen = data.split(loaded.good, config.optim.batch, config.seed)
    mesh = training.data_mesh(config.run.devices, config.optim.batch, config.optim.microbatches)
    feed = data.feed_of(loaded, chosen, config.model.image, config.data, training.share(mesh))
    views = jnp.asarray(data.held_out_views(loaded, chosen, config.model.image))
    steps = config.optim.steps or config.optim.epochs * chosen.steps_per_epoch

    init_key, train_key, mask_key = jr.split(jr.key(config.seed), 3)
    schedule = training.cosine(config.optim, steps)
    optimizer = training.adamw(config.optim, schedule)
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if jax.default_backend() == "gpu" else "float32"

    @eqx.filter_jit
    def initial(key):
        model = build(key=key)
        return training.init_state(model, masked.trainable(model), optimizer, config.optim.ema is not None)

    @eqx.filter_jit
    def evaluate(params, views, heads):
        model = trees.cast(materialize(params, Widths(heads, heads)), precision)
        return masked.evaluate(model, views, chunk=min(len(views), 128), key=mask_key)

    def held_out_loss(state, heads):
        return float(evaluate(state.result, views, jnp.array(heads)))

    step = training.make_step(
        scaling.preparation(config.scaling, config.model, family, precision),
        masked.loss,
        optimizer,
        microbatches=config.optim.microbatches,
        ema=config.optim.ema,
    )
    identity = f"{len(loaded.good)} images of {loaded.source.name}"

    with run, training.Interrupt() as interrupt:
        state, start, best = initial(init_key), 0, float("inf")
        if (saved := run.checkpoints.restore(state)) is not None:
            state, about = saved
            start, best = about["step"], about["best"]
            if about["data"] != identity:
                raise UserError(
                    f"{run.path} began on {about['data']}, now there are {identity}; say --run.overwrite to start anew."
                )
            cli.say(f"going on from step {start} of {steps} in {run.path}")
        else:
            cli.say(f"pre-training under {family!r} for {steps} steps in {run.path}")
        state = training.replicate(state, mesh)
        run.begin(start)
        watch = training.Stopwatch(start, steps, config.optim.batch)

        def finite(loss, done):
            """A state is saved only if its losses are finite, so a checkpoint is always sound."""
            if not loss < float("inf"):
                raise RunError(
                    f"the loss is {loss} at step {done}; lower --optim.base-lr, or say --precision float32. "
                    f"Checkpoints in {run.checkpoints.folder} are from before that."
                )
            return loss

        def record(done, state):
            loss = finite(float(state.tally) / int(state.tallied), done)
            epoch = done / chosen.steps_per_epoch
            run.record(step=done, epoch=epoch, loss=loss, learning_rate=jnp.asarray(schedule(done - 1)).item())
            run.time(step=done, images_per_second=watch.lap(done, loss))
            return state.recounted()

        def save(done, state):
            nonlocal best
            finite(float(state.tally), done)
            loss = finite(held_out_loss(state, heads), done)
            run.record(step=done, held_out_loss=loss)
            better, best = loss < best, min(loss, best)
            run.checkpoints.save(done, state, {"best": best, "data": identity}, best=better)

        def heed(done, state):
            if interrupt.asked is not None:
                finite(float(state.tally), done)
                run.checkpoints.save(done, state, {"best": best, "data": identity})
                run.checkpoints.wait()
                cli.say(f"\nstopped at step {done}, saved; the same command, less --run.overwrite, goes on from there.")
                raise SystemExit(128 + interrupt.asked)

        every = [(config.run.log_every, record), (config.run.save_every, save), (1, heed)]
        state = training.fit(
            state, step, data.ahead(feed, start, steps), start=start, stop=steps, key=train_key, every=every
        )
        run.checkpoints.wait()

        made = bank.Bank(
            state.result, family, {"data": loaded.source.name, "images": len(chosen.train), "steps": steps}
        )
        bank.save_bank(run.path / "bank.safetensors", made)
        metrics = training.read_metrics(run.path)
        pictures.loss_curve(metrics, run.path / "loss.png", f"{family} on {loaded.source.name}")
        shown = pictures.widths_to_show(heads)
        pictures.reconstruction_grid(state.result, views[:6], shown, run.path / "reconstructions.png", key=mask_key)
        run.finish(
            steps=steps,
            loss=[line["loss"] for line in metrics if "loss" in line][-1],
            held_out_loss={n: held_out_loss(state, n) for n in shown},
            sizes=made.sizes,
        )
    cli.say(
        f"bank             {run.path / 'bank.safetensors'}\n"
        f"loss curve       {run.path / 'loss.png'}\n"
        f"reconstructions  {run.path / 'reconstructions.png'}\n"
        f"next             python experiments/reconstruct.py {run.path / 'bank.safetensors'} "
        f"--data {config.data.source} --heads {' '.join(str(n) for n in shown)}"
    )
    return run.path / "bank.safetensors"


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse(PRESETS)))
