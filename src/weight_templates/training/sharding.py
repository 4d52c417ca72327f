"""Data parallelism: one mesh axis, `data`. Parameters on every device, each batch shared among them."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ..errors import UserError


def data_mesh(devices: int | None, batch: int, microbatches: int) -> Mesh:
    """A mesh over this host's devices, all of them if None; raises UserError where they cannot share a batch."""
    available = jax.local_devices()
    count = len(available) if devices is None else devices
    if not 1 <= count <= len(available):
        raise UserError(f"--run.devices {count} was asked for, but this host has {len(available)}.")
    if batch % (count * microbatches):
        raise UserError(
            f"a batch of {batch} does not divide among {count} devices and {microbatches} micro-batches; "
            f"choose --optim.batch as a multiple of {count * microbatches}, or fewer --run.devices."
        )
    return Mesh(np.array(available[:count]), ("data",), axis_types=(AxisType.Auto,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The arrays of a tree on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def share(mesh: Mesh) -> NamedSharding:
    """How a batch lies: its first axis cut among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))
