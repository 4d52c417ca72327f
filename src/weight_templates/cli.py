"""The command line of every experiment: parse before JAX is imported, and turn a mistake into one sentence."""

import contextlib
import dataclasses
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tyro

from .config import BACKBONES, with_backbone
from .entry import TUNABLES, run, say
from .errors import UserError
from .help import help_of, methods_of
from .options import check_names, check_values, options_of, sentence


__all__ = ["TUNABLES", "clock", "errors_to", "parse", "parse_command", "run", "say"]

Config = TypeVar("Config")


def parse(presets: Mapping[str, Config], argv: list[str] | None = None) -> Config:
    """Reads the command line into a configuration.

    **Arguments:**

    - `presets`: configurations by name, the first of them the default. `--preset NAME` chooses where the other flags
        start from, wherever it stands. A command that has no presets gives a single one, whatever its name.
    - `argv`: the arguments; default `sys.argv[1:]`.

    **Returns:** the configuration.

    Exits with 0 after `--help`; raises UserError for a flag or value that does not parse, and for one that no option takes.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    base = presets[_chosen("preset", presets, argv)]
    inner = getattr(base, "config", base)
    if hasattr(inner, "backbone"):  # its sizes have other names for another backbone, so it is read first
        inner = with_backbone(inner, _chosen("backbone", {inner.backbone: None} | BACKBONES, argv))
        base = dataclasses.replace(base, config=inner) if hasattr(base, "config") else inner
    return _parsed(base, argv)


def parse_command(
    commands: Iterable[str], config_of: Callable[[str], Any], about: str, argv: list[str] | None = None
) -> tuple[str, Any]:
    """Reads a command line that begins with one of several commands, each with a configuration of its own.

    **Arguments:**

    - `commands`: their names.
    - `config_of`: returns the default configuration of a command, given its name; only called for the one that is asked
        for, since it may be slow to import.
    - `about`: what `--help` says of all of them.
    - `argv`: the arguments; default `sys.argv[1:]`.

    **Returns:** the name of the command and its configuration. Exits and raises as `parse` does.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    names = list(commands)
    if argv and argv[0] in names:
        return argv[0], _parsed(config_of(argv[0]), argv[1:], argv[0])
    if _asks_for_help(argv):
        print(methods_of(about))
        raise SystemExit(0)
    fault = "nothing was chosen" if not argv or argv[0].startswith("-") else f"there is no {argv[0]!r} here"
    raise UserError(f"{fault}; say first which of {', '.join(names)}.")


def _parsed(default: Any, argv: list[str], *words: str) -> Any:
    options = options_of(default)
    if _asks_for_help(argv):
        print(help_of(default, options, *words))
        raise SystemExit(0)
    check_names(argv, options)
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard), _wide():
            config = tyro.cli(type(default), args=argv, default=default, add_help=False)
    except SystemExit:
        raise UserError(sentence(heard.getvalue(), options, argv)) from None
    check_values(config, options, argv)
    return config


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """Has tyro break no line of what it says."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _asks_for_help(argv: list[str]) -> bool:
    return "-h" in argv or "--help" in argv


def _chosen(option: str, names: Mapping[str, Any], argv: list[str]) -> str:
    """The value of an option that decides what the others start from, wherever it stands; default the first of `names`."""
    name = next(iter(names))
    for i, word in enumerate(argv):
        if word == f"--{option}":
            name = argv[i + 1] if i + 1 < len(argv) else ""
        elif word.startswith(f"--{option}="):
            name = word.partition("=")[2]
    if name not in names:
        raise UserError(f"there is no {option} {name!r}; choose --{option} among {', '.join(names)}.")
    return name


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextlib.contextmanager
def errors_to(path: Path) -> Iterator[None]:
    """Has processes that are started meanwhile write their errors to the end of a file, not to the terminal."""
    sys.stderr.flush()
    path.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.dup(2)
    try:
        with open(path, "ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
