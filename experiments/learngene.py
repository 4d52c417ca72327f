"""The backbones of WAVE, TLEG and FINE: how `experiments/baseline.py` has their templates learned and fitted to a size.

Teacher, then auxiliary network, then the size's scalers, each a run of its own, which goes on where it was killed; the
first two are the same for all sizes, and made once. What is learned is in `weight_templates.baselines.learngene`.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from experiments import finetune
from weight_templates import cli
from weight_templates.config import OptimOptions, ViTConfig, to_json
from weight_templates.errors import UserError


if TYPE_CHECKING:
    from experiments.baseline import Learngene


def check(config: "Learngene") -> None:
    """Raises UserError for what can be refused before anything is trained."""
    import equinox as eqx
    import jax.random as jr
    import numpy as np

    from weight_templates import data
    from weight_templates.constrained import constrain
    from weight_templates.layouts import LAYOUTS

    config.recipe.check()
    trained = trained_of(config)
    for flag, optim in trained.items():
        optim.check(flag)
    if config.fit != type(config)().fit and "--fit" not in trained:
        raise UserError(
            f"--fit.* was given, but scalers of {type(config).__name__.upper()} follow from the depth, and none is fitted; "
            "leave it out."
        )
    if config.recipe.layer_decay < 1:
        raise UserError("--recipe.layer-decay is for fine-tuning; the templates belong to all layers.")
    layout = LAYOUTS["components"]()
    eqx.filter_eval_shape(constrain, config.model, config.constraint(), layout, key=jr.key(0))
    source = data.open_source(config.data, config.model.image, config.seed)
    finetune.check_classes(source.name, source.classes)
    images = np.arange(len(source))
    for flag, optim in trained.items():
        data.split(images, optim.batch, config.seed, part=1 / 10, most=float("inf"), flag=f"{flag}.batch")


def trained_of(config: "Learngene") -> dict[str, OptimOptions]:
    """The options of what is trained, by their flag."""
    return {"--optim": config.optim} | ({} if config.constraint().fixed else {"--fit": config.fit})


def read_teacher(config: "Learngene") -> Any:
    """The teacher and what its file says; raises UserError where it is no classifier of the images' side."""
    from weight_templates import convert
    from weight_templates.models import Classifier

    read = convert.load_model(config.teacher, heads=config.teacher_heads)
    if not isinstance(read.model, Classifier) or read.model.backbone.config.image != config.model.image:
        raise UserError(f"{config.teacher} is no classifier of {config.model.image} px; give one, or leave it out.")
    return read


def teacher_of(config: "Learngene") -> str:
    """The path of the teacher, trained first if none was given; raises UserError where a batch of what is trained after it
    does not divide among the devices."""
    from weight_templates import training

    for flag, optim in trained_of(config).items():
        training.data_mesh(config.run.devices, optim.batch, optim.microbatches, flag)
    if config.teacher:
        return config.teacher
    cli.say("training a teacher, since none was given")
    return str(
        finetune.main(
            finetune.Config(
                model=config.model,
                data=config.data,
                recipe=config.recipe,
                optim=config.optim,
                precision=config.precision,
                seed=config.seed,
                run=dataclasses.replace(config.run, out=None),
            )
        )
    )


def auxiliary_of(config: "Learngene", teacher: Any, known: list[str] | None) -> tuple[Any, int]:
    """The constrained backbone that a teacher was distilled into, and in how many steps; learned once for all sizes.

    Raises UserError where the teacher's classes, `known` by name if it tells, are not those of the data.
    """
    import equinox as eqx
    import jax.random as jr
    import numpy as np

    from weight_templates import training, trees
    from weight_templates.baselines import learngene
    from weight_templates.constrained import constrain, materialize
    from weight_templates.files import read_safetensors, write_safetensors
    from weight_templates.layouts import LAYOUTS
    from weight_templates.models import Classifier

    name = type(config).__name__.lower()
    about = to_json(config, without=("run", "depth", "heads", "fit", "teacher"))
    about |= {"method": name, "teacher": finetune.identity(config.teacher)}
    options = dataclasses.replace(config.run, out=None)
    run = training.Run("baseline", f"{name}-auxiliary", about, options)
    kept = run.path / "auxiliary.safetensors"
    build = eqx.Partial(constrain, config.model, config.constraint(), LAYOUTS["components"]())
    akey, hkey = jr.split(jr.key(config.seed))
    if run.summary is None:
        images = finetune.images_of(config, config.model.image, tested=False)
        if len(teacher.head.bias) != len(images.classes):
            raise UserError(
                f"{config.teacher} knows {len(teacher.head.bias)} classes, the data have {len(images.classes)}; give a "
                "teacher for these data, or none."
            )
        if known and list(images.classes) != known:
            raise UserError(
                f"the classes of {config.teacher} are {', '.join(known[:3])} …, those of the data "
                f"{', '.join(images.classes[:3])} …; give a teacher for these data, or none."
            )
        student = Classifier(eqx.filter_jit(build)(key=akey), len(images.classes), key=hkey)
        arm = arm_of(config, student, images)._replace(
            trained=learngene.Distillation(student, teacher),
            loss=learngene.distillation(config.recipe),
            held_out=lambda pair: finetune.logits_of(config, materialize(pair.student), images.held_out),
            trainable=learngene.student_mask,
        )
        with run:
            best, at = finetune.learn(config, run, images, arm)
            note = {"steps": config.optim.total(images.split.steps_per_epoch), "best_step": at["step"]}
            arrays = trees.named_arrays(best.student.backbone)
            if training.leads():
                write_safetensors(kept, {name: np.asarray(array) for name, array in arrays.items()}, note)
            run.finish(**note)
    arrays, note = read_safetensors(kept, remedy="remove its directory, and run the same command again")
    return trees.with_arrays(eqx.filter_eval_shape(build, key=akey), arrays), note["steps"]


def fitted(config: "Learngene", source: None, target: ViTConfig, run: Any) -> tuple[Any, dict[str, Any]]:
    """See `weight_templates.baselines.learngene`."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    import weight_templates as wt
    from weight_templates import inherit
    from weight_templates.baselines import learngene
    from weight_templates.constrained import materialize
    from weight_templates.counting import count
    from weight_templates.models import Classifier

    read = read_teacher(config)
    teacher = read.model
    auxiliary, steps = auxiliary_of(config, teacher, read.about.get("classes"))
    skey, hkey = jr.split(jr.key(config.seed))
    backbone = learngene.at_size(jax.tree.map(jnp.asarray, auxiliary), target, key=skey)
    flops = 3 * count(config.model).flops + count(teacher.backbone.config).flops
    learned = steps * config.optim.batch * flops
    # What the teacher cost is known of those that were trained from scratch: others had a pre-training besides.
    lessons = read.about["summary"]["flops"] if read.about.get("start") == "scratch" else None
    cost: dict[str, Any] = {
        "source_flops": None if lessons is None else lessons + learned,
        "distillation_flops": learned,
    }
    cost["transferred"] = inherit.inherited(auxiliary, target)
    if auxiliary.constraint.fixed:
        return eqx.filter_jit(wt.expand)(backbone), cost
    fitting = dataclasses.replace(config, optim=config.fit)
    images = finetune.images_of(fitting, target.image, tested=False)
    model = Classifier(backbone, len(images.classes), key=hkey)
    arm = arm_of(fitting, model, images)._replace(
        held_out=lambda trained: finetune.logits_of(config, materialize(trained), images.held_out),
        trainable=learngene.scaler_mask,
    )
    with run:
        best, _ = finetune.learn(fitting, run, images, arm)
    cost["size_flops"] = 3 * count(target).flops * config.fit.total(images.split.steps_per_epoch) * config.fit.batch
    return eqx.filter_jit(wt.expand)(best.backbone), cost


def arm_of(config: "Learngene", model: Any, images: Any) -> Any:
    """What fine-tuning makes of it."""
    from weight_templates import training

    mesh = training.data_mesh(config.run.devices, config.optim.batch, config.optim.microbatches)
    return finetune.full(config, model, images, training.share(mesh))
