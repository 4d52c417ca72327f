"""What the paper leaves open or fixes once: ranks, masks, layers, adaptation, mask ratio, decoder, length, rate.

Of `sweet`, `without masks`, `ordinary` and `ordinary with masks`, the last two without templates, all at a size of the bank's
own width and depth, where nothing is cut, tell what the constraint does and what the masks do. At other sizes `ordinary` is
cut by weight selection, `ordinary with masks` to the prefixes that it was trained for. With `full ranks` factors can be any
matrices, and what is left of the constraint is how it is learned. At the bank's depth the rules for layers are one.

Counterpart of: no table; our own. The paper fixes 75 % of patches hidden, 450 epochs of pre-training, and adaptation of some
hundred steps, a sixth of an epoch.
Command: python ablations/choices.py PATH/TO/cifar10
Cost: on two CPU cores about an hour a row that pre-trains anew, minutes for the others (zero-shot and adaptations).
Expected: `half the steps` below `sweet` and `twice the steps` above; `ordinary`, which has the most numbers to learn with,
ahead of all at its own size, and what masks cost gained back at widths that are cut.
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
    command("ablations.choices")

from functools import partial

from ablations import variants
from ablations.variants import Config, Variant
from weight_templates.config import ScalingOptions


ORDINARY = (("constraint.family", "none"), ("scaling", ScalingOptions()))
PREFIXES = (("constraint.family", "none"), ("scaling.scope", "submodel"))
UNMASKED = (("scaling", ScalingOptions(scope="off")),)
VARIANTS = (
    Variant("sweet"),
    Variant("half the ranks", ranks=0.5),
    Variant("twice the ranks", ranks=2),
    Variant("full ranks", ranks=6),
    Variant("full ranks without masks", UNMASKED, ranks=6),
    Variant(
        "masks of weights only", (("scaling", ScalingOptions(scope="scalers", coupled=True, heads=(3, 6, 9, 12))),)
    ),
    Variant("rows and columns apart", (("scaling.coupled", False),)),
    Variant("every width", (("scaling.heads", None),)),
    Variant("full width in half of the steps", (("scaling.heads", (3, 6, 9, 12, 12, 12)),)),
    Variant("without masks", UNMASKED),
    Variant("ordinary", ORDINARY, method="weight-selection"),
    Variant("ordinary with masks", PREFIXES, method="zero-shot"),
    Variant("zero-shot", method="zero-shot"),
    Variant("uniform layers", adaptation=(("layers", "uniform"),)),
    Variant("interpolated layers", adaptation=(("layers", "interpolate"),)),
    Variant("50 steps of adaptation", adaptation=(("optim.steps", 50),)),
    Variant("800 steps of adaptation", adaptation=(("optim.steps", 800),)),
    Variant("random scalers", adaptation=(("scalers", "random"),)),
    Variant("half masked", (("decoder.mask_ratio", 0.5),)),
    Variant("one block of decoder", (("decoder.depth", 1),)),
    Variant("half the steps", steps=0.5),
    Variant("twice the steps", steps=2),
    Variant("four times the steps", steps=4),
    Variant("full ranks, four times the steps", ranks=6, steps=4),
    Variant("ordinary with masks, four times the steps", PREFIXES, method="zero-shot", steps=4),
    Variant("ordinary, twice the steps", ORDINARY, method="weight-selection", steps=2),
    Variant("half the rate", rate=0.5),
    Variant("twice the rate", rate=2),
)
PRESETS = {"default": Config(sizes=("L12H12", "L3H5", "L6H6", "L12H3"))}
jobs = partial(variants.jobs, "choices", VARIANTS)
collect = partial(variants.collect, "choices", VARIANTS, PRESETS["default"])
