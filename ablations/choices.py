"""What the paper leaves open or fixes once: ranks, masks, layers, adaptation, mask ratio, decoder, length, rate.

The rows `ordinary` and `ordinary with masks`, no templates, tell with `without masks` what the constraint does and what the
masks do.

Counterpart of: no table; our own.
Command: python ablations/choices.py PATH/TO/cifar10
Cost: on two CPU cores about an hour a row that pre-trains anew, minutes for the others (zero-shot and adaptations).
Expected: no row far from `sweet`, but for `half the steps` below it and `twice the steps` above.
"""

from functools import partial

from ablations import variants
from ablations.variants import Config, Variant
from weight_templates import launch
from weight_templates.config import ScalingOptions


VARIANTS = (
    Variant("sweet"),
    Variant("ranks 12 48 48", (("constraint.tucker.ranks", (12, 48, 48)),)),
    Variant("ranks 48 192 192", (("constraint.tucker.ranks", (48, 192, 192)),)),
    Variant(
        "masks of weights only", (("scaling", ScalingOptions(scope="scalers", coupled=True, heads=(3, 6, 9, 12))),)
    ),
    Variant("rows and columns apart", (("scaling.coupled", False),)),
    Variant("every width", (("scaling.heads", None),)),
    Variant("full width in half of the steps", (("scaling.heads", (3, 6, 9, 12, 12, 12)),)),
    Variant("without masks", (("scaling", ScalingOptions(scope="off")),)),
    Variant("ordinary", (("constraint.family", "none"), ("scaling", ScalingOptions())), method="weight-selection"),
    Variant(
        "ordinary with masks",
        (("constraint.family", "none"), ("scaling.scope", "submodel")),
        method="weight-selection",
    ),
    Variant("zero-shot", method="zero-shot"),
    Variant("uniform layers", adaptation=(("rows", "uniform"),)),
    Variant("interpolated layers", adaptation=(("rows", "interpolate"),)),
    Variant("50 steps of adaptation", adaptation=(("optim.steps", 50),)),
    Variant("800 steps of adaptation", adaptation=(("optim.steps", 800),)),
    Variant("random scalers", adaptation=(("scalers", "random"),)),
    Variant("half masked", (("decoder.mask_ratio", 0.5),)),
    Variant("one block of decoder", (("decoder.depth", 1),)),
    Variant("half the steps", steps=0.5),
    Variant("twice the steps", steps=2),
    Variant("half the rate", rate=0.5),
    Variant("twice the rate", rate=2),
)
PRESETS = {"default": Config(sizes=("L3H5", "L6H6", "L12H3"))}
jobs = partial(variants.jobs, "choices", VARIANTS)
collect = partial(variants.collect, "choices", PRESETS["default"])


if __name__ == "__main__":
    launch.command("ablations.choices")
