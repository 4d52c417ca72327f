"""Data parallelism: one mesh axis, `data`. Parameters on every device, each batch shared among them.

The devices may be those of several processes, which then all run the same program on the same configuration; the first
one writes (`leads`). Between training steps each works on its own copy of the parameters (`local`).
"""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ..errors import UserError


def data_mesh(devices: int | None, batch: int, microbatches: int, flag: str = "--optim") -> Mesh:
    """A mesh over all devices of all processes, or the first of one process; raises UserError where they cannot share a
    batch, which is `flag`'s."""
    available = jax.devices()
    if devices is not None and not alone():
        raise UserError(f"--run.devices is for one process, but there are {jax.process_count()}; leave it out.")
    count = len(available) if devices is None else devices
    if not 1 <= count <= len(available):
        raise UserError(f"--run.devices {count} was asked for, but this host has {len(available)}.")
    if batch % (count * microbatches):
        raise UserError(
            f"a batch of {batch} does not divide among {count} devices and {microbatches} micro-batches; "
            f"choose {flag}.batch as a multiple of {count * microbatches}, or fewer --run.devices."
        )
    return Mesh(np.array(available[:count]), ("data",), axis_types=(AxisType.Auto,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The arrays of a tree, which all processes have alike, on every device."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    if everywhere.is_fully_addressable:
        return jax.device_put(tree, everywhere)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(everywhere, np.asarray(x), x.shape), tree)


def local(tree: PyTree) -> PyTree:
    """This process's own copy of replicated arrays, which is all that is left to do without the other processes."""
    if alone():
        return tree
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)


def leads() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def alone() -> bool:
    """Whether there is one process only."""
    return jax.process_count() == 1


def meet(where: str) -> None:
    """Waits until all processes are here."""
    if not alone():
        multihost_utils.sync_global_devices(where)


def agreed(number: int) -> int:
    """The largest of all processes' numbers."""
    if alone():
        return number
    return int(multihost_utils.process_allgather(np.array(number, np.int32)).max())


def share(mesh: Mesh) -> NamedSharding:
    """How a batch lies: its first axis cut among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))
