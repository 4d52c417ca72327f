import shutil
import subprocess
from pathlib import Path

import pytest


PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun")


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory):
    """The environment of a SLURM cluster that lives as long as the tests."""
    import os

    if "slurm" not in request.config.option.markexpr:
        pytest.skip("takes minutes; say pytest -m slurm")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(
            f"SLURM is not installed ({missing[0]} is missing): apt-get install slurmctld slurmd slurm-client munge"
        )
    folder = tmp_path_factory.mktemp("slurm")
    script = Path(__file__).with_name("cluster.sh")
    started = subprocess.run([script, "start", folder], capture_output=True, text=True)
    try:
        assert started.returncode == 0, started.stderr
        yield os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "JAX_COMPILATION_CACHE_DIR": str(folder / "jax")}
    finally:
        subprocess.run([script, "stop", folder], check=True)
