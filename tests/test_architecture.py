"""The shape of the code: which module may import which, and documents that say what is there."""

import ast
import re
from pathlib import Path

import pytest

import weight_templates


ROOT = Path(__file__).parents[1]
PACKAGE = Path(weight_templates.__file__).parent

BASE = {"config", "errors", "files", "trees"}
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "files": {"errors"},
    "trees": set(),
    "cli": {"errors", "files"},
    "constraints": BASE,
    "nn": BASE,
    "models": BASE | {"nn"},
    "layouts": BASE | {"constraints", "models", "nn"},
    "constrained": BASE | {"constraints", "layouts", "models", "nn"},
    "scaling": BASE | {"constrained", "models", "training"},
    "factorize": set(),
    "decompose": BASE | {"constraints", "factorize"},
    "bank": BASE | {"constrained", "constraints", "layouts", "models"},
    "inherit": BASE | {"bank", "constrained", "constraints", "layouts", "models", "tasks"},
    "naming": BASE | {"models"},
    "convert": BASE | {"data", "models", "naming", "nn"},
    "counting": BASE | {"layouts", "models"},
    "data": BASE,
    "tasks": BASE | {"constrained", "data", "models", "nn"},
    "baselines": BASE | {"constrained", "data", "inherit", "models", "nn", "tasks"},
    "training": BASE | {"cli"},
    "jobs": BASE,
    "launch": BASE | {"cli", "jobs"},
    "pictures": BASE | {"constrained", "data", "models", "tasks"},
}


def modules():
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def imported(path):
    """The names, directly inside the package, that a module imports."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            if node.module:
                yield (*base, *node.module.split("."))[0]
            else:
                yield from ((*base, alias.name)[0] for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert set(imported(path)) - {own} <= MAY_IMPORT[own]


def test_modules_stay_small():
    for path in modules():
        assert len(path.read_text().splitlines()) <= 400, path


def test_map_of_the_code_is_complete():
    readme = (ROOT / "README.md").read_text()
    tree = readme[readme.index("## Map of the code") :]
    for path in PACKAGE.iterdir():
        if path.name.startswith("_"):
            continue
        assert (f"{path.name}/" if path.is_dir() else path.name) in tree, path.name
    for folder in ("experiments", "ablations", "figures"):
        for path in (ROOT / folder).glob("*.py"):
            assert path.name in tree, path.name


def test_public_functions_are_documented():
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_nothing_is_loaded_through_pickle():
    for folder in (PACKAGE, ROOT / "experiments", ROOT / "ablations", ROOT / "benchmarks"):
        for path in folder.rglob("*.py"):
            text = re.sub(r"torch\.load\([^()]*\bweights_only=True\)", "", path.read_text())
            assert not re.search(r"import pickle|allow_pickle=True|torch\.load", text), path


def test_ci_runs_the_tests_of_the_readme():
    """The line that `.ci/run` takes out of the README is there, once, and makes its own environment."""
    lines = re.findall(r"^python3 -m venv .*pytest.*$", (ROOT / "README.md").read_text(), re.M)
    assert len(lines) == 1
    assert "pip install" in lines[0]
