"""WAVE, TLEG and FINE: templates that a supervised teacher's knowledge is distilled into, then fitted to a size.

All three learn an auxiliary network under a constraint, one template for each kind of matrix (layout `components`), from
a teacher's logits and the labels, `L = KL(teacher ‖ student) + CE(student, label)` at temperature 1 (WAVE §3). They
differ in what slice s of layer l is made of:

    WAVE    W_s = Σ_t S_st ⊗ T_t        Kronecker products (Feng et al., CVPR 2025, arXiv 2406.17503)
    TLEG    W_s = B_j + l/L A_j         linear in the depth, j the slice's place in its layer (Xia et al., AAAI 2024, arXiv 2312.05614)
    FINE    W_s = U diag(x_s) Vᵀ        shared bases, a diagonal a slice (Xie et al., 2024, arXiv 2409.19289)

For a target, the template (T; A and B; U and V) is frozen and the scalers (S; x) learn for some hundred steps by cross
entropy; TLEG's follow from the depth and learn nothing.

So that the three differ in nothing else, we depart from their sources. TLEG distils by KL alone, and lets norms and
biases grow linearly too; here they are the auxiliary network's at the same places l/L of its depth, between two layers
their mixture. FINE starts a target's diagonals at random, and has bases for a whole matrix rather than for its D x D
slices, some ten times as many numbers. Where the sources known to us are silent: WAVE's templates are a quarter of a
slice high and wide, so that multiples of a quarter of the width are made of whole ones; scalers start as the auxiliary
network's, the first layers' and the width's prefix; what no constraint governs (norms, biases, embeddings) is inherited
likewise and frozen; TLEG, which has no rule for the width, takes its prefix; the head is new.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from .. import bank, cli, convert, data, training, trees
from ..config import (
    FINE,
    BackboneConfig,
    DataOptions,
    Finetuning,
    OptimOptions,
    Precision,
    RecipeOptions,
    ViTConfig,
    to_json,
)
from ..constrained import Constrained, constrain, trainable
from ..constraints import family_of
from ..counting import count
from ..data import Batch
from ..errors import UserError
from ..files import identity
from ..inherit import inherited, mixed, neighbours, redraw, resize
from ..learning import SPARED, Recipe, at_width, best, learn, opened
from ..models import Classifier
from ..tasks import Terms, classify
from ..tasks.classify import Classify
from ..tasks.distil import Distil, student_mask
from ..training import Run
from .base import AbstractMethod, Made, Source, check_common


NONE = "give the path of a classifier, or none"


@dataclasses.dataclass(frozen=True)
class Learngene(AbstractMethod):
    """Templates that a supervised teacher is distilled into, fitted to the size."""

    teacher: tyro.conf.Positional[str] = ""
    """A classifier to learn from; default one that is trained first, of the shape of `--model`."""
    teacher_heads: int | None = None
    """Heads of a teacher whose file does not record them, such as timm's models of unusual width."""
    model: ViTConfig = ViTConfig(depth=12, head_dim=16)
    """The auxiliary network, whose templates are learned."""
    data: DataOptions = DataOptions()
    recipe: RecipeOptions = RecipeOptions()
    optim: OptimOptions = FINE
    """Optimiser of the distillation, and of the teacher."""
    fit: OptimOptions = dataclasses.replace(FINE, steps=200)
    """Optimiser of the scalers for this size."""
    precision: Precision = "auto"
    """Precision of the forward and backward passes. auto: bfloat16 on a GPU, float32 on a CPU. Parameters are always
    float32."""

    @abc.abstractmethod
    def constraint(self) -> Any:
        """What the templates are learned under."""

    @property
    def trained(self) -> dict[str, OptimOptions]:
        """The options of what is trained, by their flag."""
        return {"--optim": self.optim} | ({} if self.constraint().fixed else {"--fit": self.fit})

    def check_options(self) -> None:
        check_common(self)
        self.model.check()
        if self.teacher:
            identity(self.teacher, NONE)
        self.recipe.check()
        for flag, optim in self.trained.items():
            optim.check(flag)
        if self.fit != type(self)().fit and "--fit" not in self.trained:
            raise UserError(
                f"--fit.* was given, but scalers of {self.name.upper()} follow from the depth, and none is fitted; leave it out."
            )
        if self.recipe.layer_decay < 1:
            raise UserError("--recipe.layer-decay is for fine-tuning; the templates belong to all layers.")
        eqx.filter_eval_shape(constrain, self.model, self.constraint(), "components", key=jr.key(0))
        source = data.open_source(self.data, self.model.image, self.seed)
        data.check_classes(source)
        for flag, optim in self.trained.items():
            Classify(self.recipe).split(np.arange(len(source)), optim.batch, self.seed, f"{flag}.batch")

    def open(self) -> None:
        return None

    def shape(self, source: Source | None) -> BackboneConfig:
        return self.model

    def check(self, source: Source | None, target: BackboneConfig) -> None:
        if self.teacher:
            read_teacher(self)

    def cost(self, source: Source | None, target: BackboneConfig) -> int | float:
        own = count(self.model).flops
        train = int(0.9 * len(data.open_source(self.data, self.model.image, self.seed)))
        seen, fit = (o.total(train // o.batch) * o.batch for o in (self.optim, self.fit))
        teacher = count(read_teacher(self).model.backbone.config).flops if self.teacher else own
        lessons = (0 if self.teacher else 3 * own) + 3 * own + teacher
        return seen * lessons + (0 if self.constraint().fixed else 3 * count(target).flops * fit)

    def make(self, source: Source | None, target: BackboneConfig, run: Run) -> Made:
        read = read_teacher(self)
        teacher = read.model
        learned = auxiliary_of(self, teacher, read.about.get("classes"))
        auxiliary = learned.model.backbone
        keys = streams(self)
        backbone = at_size(auxiliary, target, key=keys.scalers)
        flops = 3 * count(self.model).flops + count(teacher.backbone.config).flops
        spent = learned.about["steps"] * self.optim.batch * flops
        # What the teacher cost is known of those that were trained from scratch: others had a pre-training besides.
        lessons = read.about["summary"]["flops"] if read.about.get("start") == "scratch" else None
        told = Made(
            at_width(backbone, "float32"),
            0,
            inherited(auxiliary, target),
            None if lessons is None else lessons + spent,
            {"distillation_flops": spent},
        )
        if auxiliary.constraint.fixed:
            return told
        task = Classify(self.recipe)
        images = images_of(self, task, target, self.fit, run)
        model = Classifier(backbone, len(images.classes), key=keys.head)
        with run:
            learned = learn(
                run, task, model, images, Recipe(self.fit, self.precision, SPARED), key=keys.fit, moves=scaler_mask
            )
            fitted, _ = best(run, learned)
        size = 3 * count(target).flops * self.fit.total(images.split.steps_per_epoch) * self.fit.batch
        return told._replace(backbone=at_width(fitted.backbone, "float32"), size_flops=size)


class Streams(NamedTuple):
    """The keys of all that is random in a method, each used once."""

    auxiliary: PRNGKeyArray
    head_of_auxiliary: PRNGKeyArray
    distillation: PRNGKeyArray
    scalers: PRNGKeyArray
    head: PRNGKeyArray
    fit: PRNGKeyArray


def streams(method: Learngene) -> Streams:
    """The keys that follow from a method's seed."""
    return Streams(*jr.split(jr.key(method.seed), len(Streams._fields)))


def read_teacher(method: Learngene) -> Any:
    """The teacher and what its file says; raises UserError where it is no classifier of the images' side."""
    read = convert.load_model(method.teacher, heads=method.teacher_heads)
    if not isinstance(read.model, Classifier) or read.model.backbone.config.image != method.model.image:
        raise UserError(f"{method.teacher} is no classifier of {method.model.image} px; give one, or leave it out.")
    return read


def with_teacher(method: Learngene, train: Callable[[Finetuning], str]) -> Learngene:
    """The method with the path of a teacher, which is trained first if none was given.

    **Arguments:**

    - `train`: returns the path of the classifier that a fine-tuning makes.

    Raises UserError where a batch of what is trained after it does not divide among the devices.
    """
    for flag, optim in method.trained.items():
        training.data_mesh(method.run.devices, optim.batch, optim.microbatches, flag)
    if method.teacher:
        return method
    cli.say("training a teacher, since none was given")
    names = ("model", "data", "recipe", "optim", "precision", "seed")
    return dataclasses.replace(method, teacher=train(Finetuning(**{name: getattr(method, name) for name in names})))


def auxiliary_of(method: Learngene, teacher: Any, known: list[str] | None) -> bank.Bank:
    """The bank that a teacher was distilled into, learned once for all sizes.

    Raises UserError where the teacher's classes, `known` by name if it tells, are not those of the data.
    """
    about = to_json(method, without=("run", "depth", "heads", "fit", "teacher"))
    about |= {"method": method.name, "teacher": identity(method.teacher)}
    run = Run(
        "baseline", f"{method.name}-auxiliary", about, dataclasses.replace(method.run, out=None), ("bank.safetensors",)
    )
    kept = run.path / "bank.safetensors"
    if run.summary is not None:
        return bank.load_bank(kept)
    inner, keys = Classify(method.recipe), streams(method)
    images = images_of(method, inner, method.model, method.optim, run)
    if len(teacher.head.bias) != len(images.classes):
        raise UserError(
            f"{method.teacher} knows {len(teacher.head.bias)} classes, the data have {len(images.classes)}; give a "
            "teacher for these data, or none."
        )
    if known and list(images.classes) != known:
        raise UserError(
            f"the classes of {method.teacher} are {', '.join(known[:3])} …, those of the data "
            f"{', '.join(images.classes[:3])} …; give a teacher for these data, or none."
        )
    backbone = eqx.filter_jit(constrain)(method.model, method.constraint(), "components", key=keys.auxiliary)
    student = Classifier(backbone, len(images.classes), key=keys.head_of_auxiliary)
    with run:
        learned = learn(
            run,
            Distil(inner, distillation(method.recipe)),
            Distillation(student, teacher),
            images,
            Recipe(method.optim, method.precision, SPARED),
            key=keys.distillation,
            moves=student_mask,
            backbone=lambda pair: pair.student.backbone,
        )
        pair, at = best(run, learned)
        note = {"steps": learned.steps, "best_step": at, "data": images.name, "classes": list(images.classes)}
        made = bank.Bank(pair.student, family_of(method.constraint()), note)
        if training.leads():
            bank.save_bank(kept, made)
        run.finish(**note)
    return made


def images_of(method: Learngene, task: Classify, network: BackboneConfig, optim: OptimOptions, run: Run) -> Any:
    """The images to learn from."""
    source = data.open_source(method.data, network.image, method.seed)  # pyright: ignore[reportAttributeAccessIssue]
    return opened(task, source, method.data, network, optim, run, method.seed)


class Distillation(eqx.Module):
    """A classifier whose backbone is constrained, and the one that it learns from."""

    student: Classifier
    teacher: Classifier


def distillation(recipe: RecipeOptions) -> Callable[..., tuple[Float[Array, ""], Terms]]:
    """Returns the loss of a step: KL(teacher ‖ student) + cross entropy, both on the same augmented images."""

    def loss(pair: Distillation, batch: Batch, keys: Key[Array, " batch"]) -> tuple[Float[Array, ""], Terms]:
        logits, targets, images = classify.forward(recipe, pair.student, batch, keys)
        goal = jax.lax.stop_gradient(jax.vmap(pair.teacher)(images).astype(jnp.float32))
        distance, task = divergence(goal, logits), optax.softmax_cross_entropy(logits, targets)
        return (distance + task).mean(), {"task": task.mean(), "distance": distance.mean()}

    return loss


def divergence(
    teacher: Float[Array, "*batch classes"], student: Float[Array, "*batch classes"]
) -> Float[Array, " *batch"]:
    """KL(teacher ‖ student) between the distributions of two sets of logits, nats."""
    goal = jax.nn.log_softmax(teacher)
    return jnp.sum(jnp.exp(goal) * (goal - jax.nn.log_softmax(student)), axis=-1)


def scaler_mask(model: Classifier) -> PyTree:
    """True at what learns for a target: the scalers, and the head."""
    return jax.tree_util.tree_map_with_path(
        lambda path, learns: learns and (".scalers." in trees.name_of(path) or trees.name_of(path).startswith("head.")),
        trainable(model),
    )


def at_size(auxiliary: Constrained, target: BackboneConfig, *, key: PRNGKeyArray) -> Constrained:
    """The auxiliary backbone at a target's size, before its scalers learn; fixed ones are the target's own."""
    if not auxiliary.constraint.fixed:
        return resize(auxiliary, target.depth, target.heads)
    depth = auxiliary.config.depth
    place = np.arange(target.depth) * depth / target.depth  # where TLEG has the target's layers in the source's depth
    return redraw(mixed(auxiliary, target, [neighbours(depth, place)]), key=key)
