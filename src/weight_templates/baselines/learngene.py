"""WAVE, TLEG and FINE: templates that a supervised teacher's knowledge is distilled into, then fitted to a size.

All three learn an auxiliary network under a constraint, one template for each kind of matrix (layout `components`), from
a teacher's logits and the labels: KL(teacher ‖ student) + cross entropy at temperature 1, summed (WAVE §3). They differ
in the constraint: Kronecker products (WAVE, Feng et al., 2025), matrices that grow linearly with depth (TLEG, Xia et al.,
2024), shared bases with a diagonal per layer (FINE, Xie et al., 2024). For a target, the template is frozen and the
scalers learn for some hundred steps by cross entropy; TLEG's follow from the depth and learn nothing.

Where the sources known to us are silent, we chose: scalers start as the auxiliary network's, the first layers' and the
width's prefix; what no constraint governs (norms, biases, embeddings) is inherited likewise and frozen; TLEG, which has
no rule for the width, takes its prefix; the head is new.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from .. import trees
from ..config import RecipeOptions, ViTConfig
from ..constrained import Constrained
from ..data import Batch
from ..inherit import redraw, resize
from ..models import Classifier
from ..tasks import classify, masked


class Pupil(eqx.Module):
    """A classifier whose backbone is constrained, and the one that it learns from."""

    student: Classifier
    teacher: Classifier


def distillation(recipe: RecipeOptions) -> Callable[[Pupil, Batch, Key[Array, " batch"]], Float[Array, ""]]:
    """The loss of a step: KL(teacher ‖ student) + cross entropy, both on the same augmented images."""

    def loss(pupil: Pupil, batch: Batch, keys: Key[Array, " batch"]) -> Float[Array, ""]:
        logits, targets, images = classify.answers(recipe, pupil.student, batch, keys)
        goal = jax.lax.stop_gradient(jax.vmap(pupil.teacher)(images).astype(jnp.float32))
        return (divergence(goal, logits) + optax.softmax_cross_entropy(logits, targets)).mean()

    return loss


def divergence(
    teacher: Float[Array, "*batch classes"], student: Float[Array, "*batch classes"]
) -> Float[Array, " *batch"]:
    """KL(teacher ‖ student) between the distributions of two sets of logits, nats."""
    goal = jax.nn.log_softmax(teacher)
    return jnp.sum(jnp.exp(goal) * (goal - jax.nn.log_softmax(student)), axis=-1)


def studying(pupil: Pupil) -> PyTree:
    """True at what learns in distillation: the student."""
    everything = masked.trainable(pupil)
    return eqx.tree_at(lambda t: t.teacher, everything, jax.tree.map(lambda _: False, everything.teacher))


def fitting(model: Classifier) -> PyTree:
    """True at what learns for a target: the scalers, and the head."""
    return jax.tree_util.tree_map_with_path(
        lambda path, learns: learns and (".scalers." in trees.name_of(path) or trees.name_of(path).startswith("head.")),
        masked.trainable(model),
    )


def fitted(auxiliary: Constrained, target: ViTConfig, *, key: PRNGKeyArray) -> Constrained:
    """The auxiliary backbone at a target's size, before its scalers learn; fixed ones are the target's own."""
    made = resize(auxiliary, target.depth, target.heads)
    return redraw(made, key=key) if auxiliary.constraint.fixed else made
