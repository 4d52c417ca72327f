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

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from .. import trees
from ..config import RecipeOptions, ViTConfig
from ..constrained import Constrained
from ..data import Batch
from ..inherit import mixed, neighbours, redraw, resize
from ..models import Classifier
from ..tasks import classify, masked


class Distillation(eqx.Module):
    """A classifier whose backbone is constrained, and the one that it learns from."""

    student: Classifier
    teacher: Classifier


def distillation(recipe: RecipeOptions) -> Callable[[Distillation, Batch, Key[Array, " batch"]], Float[Array, ""]]:
    """The loss of a step: KL(teacher ‖ student) + cross entropy, both on the same augmented images."""

    def loss(pair: Distillation, batch: Batch, keys: Key[Array, " batch"]) -> Float[Array, ""]:
        logits, targets, images = classify.forward(recipe, pair.student, batch, keys)
        goal = jax.lax.stop_gradient(jax.vmap(pair.teacher)(images).astype(jnp.float32))
        return (divergence(goal, logits) + optax.softmax_cross_entropy(logits, targets)).mean()

    return loss


def divergence(
    teacher: Float[Array, "*batch classes"], student: Float[Array, "*batch classes"]
) -> Float[Array, " *batch"]:
    """KL(teacher ‖ student) between the distributions of two sets of logits, nats."""
    goal = jax.nn.log_softmax(teacher)
    return jnp.sum(jnp.exp(goal) * (goal - jax.nn.log_softmax(student)), axis=-1)


def student_mask(pair: PyTree) -> PyTree:
    """True at what learns in a distillation: all but the `teacher`."""
    everything = masked.trainable(pair)
    return eqx.tree_at(lambda t: t.teacher, everything, jax.tree.map(lambda _: False, everything.teacher))


def scaler_mask(model: Classifier) -> PyTree:
    """True at what learns for a target: the scalers, and the head."""
    return jax.tree_util.tree_map_with_path(
        lambda path, learns: learns and (".scalers." in trees.name_of(path) or trees.name_of(path).startswith("head.")),
        masked.trainable(model),
    )


def at_size(auxiliary: Constrained, target: ViTConfig, *, key: PRNGKeyArray) -> Constrained:
    """The auxiliary backbone at a target's size, before its scalers learn; fixed ones are the target's own."""
    if not auxiliary.constraint.fixed:
        return resize(auxiliary, target.depth, target.heads)
    depth = auxiliary.config.depth
    place = np.arange(target.depth) * depth / target.depth  # where TLEG has the target's layers in the source's depth
    return redraw(mixed(auxiliary, target, *neighbours(depth, place)), key=key)
