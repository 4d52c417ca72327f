"""Stochastic scaling and the dress of the network.

Counterpart of: SWEET's Table 5 (L3H3, L3H4, L3H5; ImageNet, epochs unknown): without scaling 48.63, 53.92, 58.65; weight
selection 48.65, 53.64, 57.09; without enhancements 49.03, 54.65, 57.80; SWEET 49.57, 55.21, 58.80. (Table 4 prints 58.99 for the
same Tucker L3H5; the paper does not explain it.)
Command: python ablations/architecture.py PATH/TO/cifar10
Cost: on two CPU cores about an hour a row with the defaults; without scaling half as much again. What `docs/results` has was
run with `--depth 6 --pretraining-steps 1500 --epochs 3 --base-lr 0.004 --batch 32`: a quarter of an hour a row.
Expected: SWEET first at every size.
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
    command("ablations.architecture")

from functools import partial

from ablations import variants
from ablations.variants import Config, Variant
from weight_templates.config import ScalingOptions


VARIANTS = (
    Variant("without scaling", (("scaling", ScalingOptions(scope="off")),)),
    Variant("weight selection", (("constraint.family", "none"), ("scaling", ScalingOptions())), "weight-selection"),
    Variant("without enhancements", (("model.dress", "plain"),)),
    Variant("sweet"),
)
PRESETS = {"default": Config(sizes=("L3H3", "L3H4", "L3H5"))}
jobs = partial(variants.jobs, "architecture", VARIANTS)
collect = partial(variants.collect, "architecture", VARIANTS, PRESETS["default"])
