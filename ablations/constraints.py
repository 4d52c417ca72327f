"""The families of constraints at equal template budget.

Counterpart of: SWEET's Table 4 (L3H5, L4H4, L5H3; ImageNet, epochs unknown): without 57.09, 57.99, 54.51; linear 58.09,
59.00, 55.66; Kronecker 58.83, 59.47, 55.88; Tucker 58.99, 59.71, 56.70. "Without" is weight selection from an ordinary
auto-encoder (its L3H5 is the number of weight selection in Table 5). SVD, FINE's family, is ours.
Command: python ablations/constraints.py PATH/TO/cifar10
Cost: on two CPU cores about an hour a family with the defaults. What `docs/results` has was run with
`--depth 6 --pretraining-steps 1500 --epochs 3 --base-lr 0.004 --batch 32`: a quarter of an hour a family.
Expected: all families above "without", Tucker first; the paper's gaps from one family to the next are below one point, so their
order needs several seeds.
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
    command("ablations.constraints")

from functools import partial

from ablations import variants
from ablations.variants import Config, Variant
from weight_templates.config import ScalingOptions


VARIANTS = (
    Variant("without", (("constraint.family", "none"), ("scaling", ScalingOptions())), "weight-selection"),
    Variant("linear", (("constraint.family", "linear"),)),
    Variant("kronecker", (("constraint.family", "kronecker"),)),
    Variant("svd", (("constraint.family", "svd"),)),
    Variant("tucker"),
)
PRESETS = {"default": Config(sizes=("L3H5", "L4H4", "L5H3"))}
jobs = partial(variants.jobs, "constraints", VARIANTS)
collect = partial(variants.collect, "constraints", VARIANTS, PRESETS["default"])
