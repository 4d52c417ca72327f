"""The machinery of every experiment: one state, one step, one loop, one run directory. It knows no model and no task."""

from .checkpoint import Checkpoints
from .loop import Interrupt, fit
from .optim import SPARED, adamw, precision_of, scaled, schedule_of
from .record import Run, Stopwatch, read_metrics
from .session import Plan, train
from .sharding import data_mesh, leads, replicate, share
from .step import TrainState, Watch, init_state, make_step


__all__ = [
    "SPARED",
    "Checkpoints",
    "Interrupt",
    "Plan",
    "Run",
    "Stopwatch",
    "TrainState",
    "Watch",
    "adamw",
    "data_mesh",
    "fit",
    "init_state",
    "leads",
    "make_step",
    "precision_of",
    "read_metrics",
    "replicate",
    "scaled",
    "schedule_of",
    "share",
    "train",
]
