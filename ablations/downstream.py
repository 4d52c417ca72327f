"""All methods at one size, fine-tuned alike on other data than that of pre-training.

Counterpart of: SWEET's Table 3, L6H6 on seven downstream sets; their numbers stand beside ours.
Command: python ablations/downstream.py BANK flowers102:FOLDER cub200:FOLDER --source SOURCE --pretraining PATH/TO/tiny-imagenet
Cost: a fine-tuning for each method and set, and what `--steps` of DMAE, of a teacher and of distillation cost: an hour or two on
two CPU cores for each set of some thousand images and the small ViT.
Expected: the paper has SWEET first on six of the seven, by 0.1 to 9.6 points, and 0.06 behind DMAE on flowers102. Its averages:
weight selection 72.36, DMAE 75.46, isomorphic pruning 70.47, WAVE 72.88 (printed as 72.56), SWEET 78.40.

The same runs as `ablations/methods.py` makes, whose description says what BANK and SOURCE are: backbones that it has made
are not made again.
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
    command("ablations.downstream")

import dataclasses
from functools import partial

from ablations import methods


PRESETS = {"default": dataclasses.replace(methods.Config(), sizes=("L6H6",))}
jobs = partial(methods.jobs, name="downstream")
collect = partial(methods.collect, name="downstream", default=PRESETS["default"])
