"""A plain backbone of any size by a method that SWEET is compared with, ready for `experiments/finetune.py`.

    python experiments/baseline.py weight-selection SOURCE --depth 6 --heads 6
    python experiments/baseline.py dmae SOURCE --depth 6 --heads 6 --data PATH
    python experiments/baseline.py scratch --depth 6 --heads 6

SOURCE is a bank, usually one that `experiments/pretrain.py --constraint none` made, or any model that
`experiments/finetune.py` takes, such as an imported MAE ViT-B. Every method leaves `model.safetensors`, and in
`summary.json` what it cost and how many numbers it took from its source, in `runs/baseline/…`. The options of a method are
shown by `python experiments/baseline.py METHOD --help`.

    scratch            random weights, as all others are where they take nothing from a source
    mimetic            random weights, attention as mimetic initialisation has it
    weight-selection   evenly spaced parts of the first layers
    isomorphic-pruning the parts with the best Taylor scores, kind by kind
    front              low frequencies of the weights
    hydravit           the first layers and heads of a network that was pre-trained with random widths
    decomposed         the first layers and heads of factors that the weights are decomposed into
    dmae               a small auto-encoder, trained next to the source
    wave, tleg, fine   templates that a supervised teacher is distilled into, fitted to the size

The last three take a teacher instead of a source: a classifier that `experiments/finetune.py` made. If there is none,
they first train it on the same data by the same recipe. Teacher and templates are made once, whatever the sizes.
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
    command("experiments.baseline")

import dataclasses
from pathlib import Path
from typing import Any

from experiments import finetune
from weight_templates import cli
from weight_templates.baselines import METHODS, method
from weight_templates.config import to_json
from weight_templates.files import identity


__all__ = ["METHODS", "check", "cost", "main", "method"]


def main(config: Any) -> Path:
    """Makes the backbone by the method that `config` is, unless that has been done.

    **Returns:** the path of the model. Raises UserError for a mistake in `config`, RunError if a loss stops being finite.
    """
    config.check_options()
    from weight_templates import convert, training, trees

    about: dict[str, Any] = to_json(config) | {"method": config.name}
    source = config.open()
    target = config.target(source)
    if hasattr(config, "teacher"):
        from weight_templates.baselines import learngene

        config = learngene.with_teacher(config, lambda settings: teacher(config, settings))
    for name in ("source", "teacher"):
        if hasattr(config, name):
            about[name] = identity(getattr(config, name), "give the path of a classifier, or none")
    run = training.Run(
        "baseline", f"{config.name}-L{target.depth}H{target.heads}", about, config.run, ("model.safetensors",)
    )
    made = run.path / "model.safetensors"
    if run.summary is not None:
        cli.say(f"finished already: {run.path}; say --run.overwrite to do it again.")
        return made
    result = config.make(source, target, run)
    note = {"method": config.name, "source": source.about if source else None, "cost": result.cost}
    with run:
        if training.leads():
            convert.save_model(made, result.backbone, note)
        parameters = trees.count(result.backbone)
        run.finish(parameters=parameters, model=dataclasses.asdict(target), cost=result.cost)
    report(target, parameters, result.cost)
    cli.say(f"model            {made}\nnext             python experiments/finetune.py {made} --data PATH")
    return made


def teacher(config: Any, settings: Any) -> str:
    """The path of the classifier that distillation learns from, fine-tuned from scratch unless it is there."""
    run = dataclasses.replace(config.run, out=None)
    words = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return str(finetune.main(finetune.Config(**words, run=run)))


def check(config: Any) -> None:
    """Raises UserError for a mistake in `config`, and for whatever else a job would fail with before it trains."""
    config.check_options()
    source = config.open()
    config.check(source, config.target(source))


def cost(config: Any) -> float:
    """FLOPs of what the method trains, teacher and templates included even where they are there already; raises UserError
    where there is no source, or no images."""
    source = config.open()
    return config.cost(source, config.target(source))


def report(target: Any, parameters: int, cost: dict[str, Any]) -> None:
    """Prints the cost account."""
    source = "unknown" if cost["source_flops"] is None else f"{cost['source_flops']:.3g} FLOPs"
    source += f", {cost['distillation_flops']:.3g} of them distillation" if "distillation_flops" in cost else ""
    print(
        f"{target.depth} layers, {target.heads} heads, {parameters:,} parameters, made from {cost['transferred']:,} numbers of "
        f"the source; source pre-training {source}, for this size {cost['size_flops']:.3g} FLOPs"
    )
