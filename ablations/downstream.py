"""All methods at one size, fine-tuned alike on other data than that of pre-training.

Counterpart of: SWEET's Table 3, L6H6 on seven downstream sets; their numbers stand beside ours.
Command: python ablations/downstream.py BANK cifar10:FOLDER flowers102:FOLDER … --source SOURCE --pretraining PATH/TO/tiny-imagenet
Cost: a fine-tuning for each method and set, and what `--steps` of DMAE, of a teacher and of distillation cost.
Expected: the paper has SWEET first on six of the seven, by 0.1 to 9.6 points, and 0.06 behind DMAE on flowers102.

The same runs as `ablations/methods.py` makes, whose description says what BANK and SOURCE are: backbones that it has made
are not made again.
"""

import dataclasses
from functools import partial

from ablations import methods
from weight_templates import launch


PRESETS = {"default": dataclasses.replace(methods.Config(), sizes=("L6H6",))}
jobs = partial(methods.jobs, name="downstream")
collect = partial(methods.collect, name="downstream", default=PRESETS["default"])


if __name__ == "__main__":
    launch.command("ablations.downstream")
