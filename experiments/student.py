"""The backbones of DMAE: how `experiments/baseline.py` has a student trained next to its source.

What the student learns is in `weight_templates.baselines.dmae`.
"""

from typing import TYPE_CHECKING, Any

from experiments import pretrain
from weight_templates.config import ScalingOptions, ViTConfig


if TYPE_CHECKING:
    from experiments.baseline import Dmae


def distilled(config: "Dmae", source: Any, target: ViTConfig, run: Any) -> tuple[Any, dict[str, Any]]:
    """See `weight_templates.baselines.dmae`."""
    import equinox as eqx
    import jax.random as jr

    from weight_templates import bank, constraints, layouts, trees
    from weight_templates.baselines import dmae
    from weight_templates.baselines.learngene import student_mask

    def initial(key):
        skey, pkey = jr.split(key)
        family, layout = constraints.FAMILIES["none"](), layouts.LAYOUTS["unified"]()
        student = bank.build(target, config.decoder, family, layout, key=skey)
        return dmae.Distillation(student, source.vit, key=pkey)

    result, learned = pretrain.learn(
        config,
        run,
        initial,
        lambda mae, about: bank.Bank(mae, "none", about),
        ScalingOptions(scope="off"),
        student_mask,
        dmae.loss,
        lambda pair: pair.student,
    )
    import weight_templates as wt

    flops = learned["steps"] * config.optim.batch * flops_of_lesson(config, source.vit.config, target)
    return eqx.filter_jit(wt.expand)(result.model.encoder), {"size_flops": flops, "transferred": 0} | {
        "teacher_parameters": trees.count(source.vit)
    }


def flops_of_lesson(config: "Dmae", teacher: ViTConfig, student: ViTConfig) -> float:
    """FLOPs of an image in a step of DMAE: the student's, and the teacher's up to the layer that is looked at."""
    from weight_templates.baselines import dmae
    from weight_templates.counting import count, count_mae

    share = (dmae.aligned(teacher.depth) + 1) / teacher.depth * (1 - config.decoder.mask_ratio)
    return 3 * count_mae(student, config.decoder) + share * count(teacher).flops
