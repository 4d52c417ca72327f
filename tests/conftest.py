import os
import shutil
import tempfile


# The commands start themselves again with another allocator, which must not happen to pytest.
os.environ.setdefault("GLIBC_TUNABLES", "")
# Tests compile much and compute little.
os.environ["XLA_FLAGS"] = " ".join((
    os.environ.get("XLA_FLAGS", ""),
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",
))  # fmt: skip

# Many tests compile the same programs, in processes of their own, too: all processes of a session share a cache.
if "TESTS_CACHE" not in os.environ:
    os.environ["TESTS_CACHE"] = tempfile.mkdtemp(prefix="weight-templates-tests-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["TESTS_CACHE"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import jax.random as jr
import numpy as np
import pytest

from weight_templates.models import vit


# Tests compile much and compute little: loops stay loops, but in commands of their own and where a test says so.
written_out = vit.unrolled
vit.unrolled = lambda: False
jax.config.update("jax_num_cpu_devices", 2)


def pytest_collection_modifyitems(config, items):
    reasons = {
        "large": "takes long, or gigabytes; say pytest -m large",
        "fuzz": "finds known faults; say pytest -m fuzz",
    }
    for marker, reason in reasons.items():
        if marker not in config.option.markexpr:
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=reason))


def pytest_sessionfinish():
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["TESTS_CACHE"], ignore_errors=True)


@pytest.fixture
def key(request):
    """A key that depends on the test's name alone."""
    return jr.key(sum(map(ord, request.node.nodeid)))


@pytest.fixture
def rng(request):
    """A numpy generator that depends on the test's name alone."""
    return np.random.default_rng(sum(map(ord, request.node.nodeid)))


@pytest.fixture
def float64():
    """Double precision while the test runs."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Drops compiled programs after every file: thousands of them in one process exhaust its memory maps, and crash it."""
    yield
    jax.clear_caches()
