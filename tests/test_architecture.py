"""The shape of the code: which module may import which, what names the engine may not know, how long files are, and
documents that say what is there."""

import ast
import re
from pathlib import Path

import pytest

import weight_templates


ROOT = Path(__file__).parents[1]
PACKAGE = Path(weight_templates.__file__).parent

BASE = {"config", "errors", "files", "trees"}
ENGINE = BASE | {"constraints", "models", "nn", "sites", "constrained"}
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "files": {"errors"},
    "trees": set(),
    "older": set(),
    "entry": {"errors", "files"},
    "options": BASE,
    "help": BASE | {"options"},
    "cli": {"config", "entry", "errors", "files", "help", "options"},
    "constraints": BASE,
    "nn": BASE,
    "models": BASE | {"nn"},
    "sites": BASE | {"constraints", "models", "nn"},
    "constrained": ENGINE - {"constrained"},
    "scaling": ENGINE | {"training"},
    "bank": ENGINE | {"older"},
    "inherit": ENGINE | {"bank"},
    "factorize": set(),
    "decompose": BASE | {"constraints", "factorize"},
    "naming": BASE | {"models"},
    "convert": BASE | {"data", "models", "naming", "nn"},
    "counting": ENGINE - {"constrained"},
    "data": BASE,
    "pictures": BASE,
    "tasks": ENGINE | {"cli", "counting", "data", "pictures"},
    "training": BASE | {"cli", "entry", "older"},
    "learning": ENGINE | {"data", "scaling", "tasks", "training"},
    "programs": ENGINE
    | {"bank", "cli", "convert", "data", "inherit", "learning", "pictures", "scaling", "tasks", "training"},
    "from_model": ENGINE | {"bank", "data", "decompose", "learning", "tasks", "training"},
    "notebooks": BASE | {"bank", "convert", "data", "inherit", "models", "programs", "training"},
    "baselines": ENGINE
    | {
        "bank",
        "cli",
        "convert",
        "counting",
        "data",
        "from_model",
        "inherit",
        "learning",
        "programs",
        "tasks",
        "training",
    },
    "jobs": BASE | {"entry"},
    "launch": BASE | {"cli", "entry", "help", "jobs"},
}
LATE = {("config", "models"), ("entry", "launch")}
"""What is imported where it is called: a configuration creates its backbone, and nothing in `config` may import JAX; the
first line of a command hears Ctrl-C, and launches what comes after it."""

WHY_LONG: dict[str, str] = {}
"""Files past 400 lines, and the reason."""


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
    found = set(imported(path)) - {own}
    assert {name for name in found if (own, name) not in LATE} <= MAY_IMPORT[own]


def test_imports_have_no_circle():
    """No module reaches itself: `MAY_IMPORT` is a partial order."""
    left = {name: set(below) - {name} for name, below in MAY_IMPORT.items()}
    while left:
        lowest = {name for name, below in left.items() if not below & left.keys()}
        assert lowest, f"a circle among {sorted(left)}"
        left = {name: below for name, below in left.items() if name not in lowest}


@pytest.mark.parametrize("name", ["constraints", "constrained", "sites", "scaling", "inherit", "bank"])
def test_the_engine_names_no_backbone_and_no_task(name):
    """Nor what their inputs are. `sites` may explain by an example why rows are interleaved."""
    for path in [PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").exists() else (PACKAGE / name).rglob("*.py"):
        text = path.read_text().lower()
        for word in ("vit", "mae", "image", "dress"):
            found = [line for line in text.splitlines() if re.search(rf"(?<![a-z]){word}s?(?![a-z])", line)]
            assert not found, (path.name, word, found)


def test_files_stay_small():
    for folder in ("src", "experiments", "ablations", "figures", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            lines, name = len(path.read_text().splitlines()), str(path.relative_to(ROOT))
            assert lines <= 400 or name in WHY_LONG, (name, lines)
            assert lines > 400 or name not in WHY_LONG, f"{name} needs no reason any more"


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


def test_docstrings_speak_plainly():
    """None begins with "Of …", nor describes a callable as "From X to Y"."""
    for folder in (PACKAGE, ROOT / "experiments", ROOT / "ablations", ROOT / "benchmarks", ROOT / "figures"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                texts = []
                if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                    texts = [ast.get_docstring(node) or ""]
                elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                    texts = [str(node.value.value)]
                for text in texts:
                    assert not re.match(r"Of |From \w+ to |From an? [^.]* to ", text.strip()), (
                        f"{path.name}: {text[:80]}"
                    )


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
