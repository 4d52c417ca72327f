"""The methods that SWEET is compared with, one file each: its options, what is refused, what it makes, what it costs.

They are imported when they are asked for, since their command lists them all.
"""

from ..config import found


METHODS = {
    "scratch": ".baselines.scratch:Scratch",
    "mimetic": ".baselines.mimetic:Mimetic",
    "weight-selection": ".baselines.selection:WeightSelection",
    "isomorphic-pruning": ".baselines.pruning:IsomorphicPruning",
    "front": ".baselines.spectral:Front",
    "hydravit": ".baselines.hydravit:HydraViT",
    "decomposed": ".baselines.decomposed:Decomposed",
    "dmae": ".baselines.dmae:Dmae",
    "wave": ".baselines.wave:Wave",
    "tleg": ".baselines.tleg:Tleg",
    "fine": ".baselines.fine:Fine",
}
"""Where each method is."""


def method(name: str, **options):
    """The method of that name, a frozen dataclass of its options."""
    return found(METHODS[name])(**options)
