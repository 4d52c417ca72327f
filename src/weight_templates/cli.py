"""The command line of every experiment: parse before JAX is imported, and turn a mistake into one sentence."""

import contextlib
import dataclasses
import io
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tyro

from .config import BACKBONES, with_backbone
from .errors import RunError, UserError
from .files import cache_folder


Config = TypeVar("Config")


def parse(presets: Mapping[str, Config], argv: list[str] | None = None) -> Config:
    """Reads the command line into a configuration.

    **Arguments:**

    - `presets`: configurations by name, the first of them the default. `--preset NAME` chooses where the other flags
        start from, wherever it stands. A command that has no presets gives a single one, whatever its name.
    - `argv`: the arguments; default `sys.argv[1:]`.

    **Returns:** the configuration.

    Exits with 0 after `--help`; raises UserError for a flag or value that does not parse.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    base = presets[_chosen("preset", presets, argv)]
    inner = getattr(base, "config", base)
    if hasattr(inner, "backbone"):  # its sizes have other names for another backbone, so it is read first
        inner = with_backbone(inner, _chosen("backbone", {inner.backbone: None} | BACKBONES, argv))
        base = dataclasses.replace(base, config=inner) if hasattr(base, "config") else inner
    return _parsed(type(base), argv, default=base)


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
    if argv[:1] in (["--help"], ["-h"]):
        print(about.strip())
        raise SystemExit(0)
    if not argv or argv[0] not in names:
        given = f"there is no {argv[0]!r} here" if argv else "no method was given"
        raise UserError(f"{given}; choose among {', '.join(names)}.")
    default = config_of(argv[0])
    prog = f"{Path(sys.argv[0]).name} {argv[0]}"
    return argv[0], _parsed(type(default), argv[1:], default=default, prog=prog)


def _parsed(kind: Any, argv: list[str], **options: Any) -> Any:
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(kind, args=argv, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_sentence(heard.getvalue())) from None


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


def _sentence(box: str) -> str:
    """What tyro drew in a box, as one sentence."""
    plain = re.sub(r"\x1b\[[0-9;]*m|\[/?bold\]", "", box)
    lines = [line.strip("│| ") for line in plain.splitlines() if not line.startswith(("╭", "╰"))]
    words = " ".join(" ".join(line for line in lines if not re.fullmatch("─+", line)).split())
    words = re.split(r"Argument helptext:|For full helptext", words)[0].strip()
    words = re.sub(r"no type matching .* could be instantiated from (\[.*?\])\. Got errors:.*", r"got \1.", words)
    words = words[:1].lower() + words[1:].rstrip(" .")
    return f"{words or 'the command line does not parse'}; see --help."


TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1099511627776:glibc.malloc.trim_threshold=1099511627776"
"""Huge pages; and what the main thread has freed is kept for what it asks for next, however large."""


def _tune_allocator() -> None:
    """Starts the process again with glibc's allocator tuned, unless the user has tuned it.

    XLA allocates the temporaries of a step anew every time; faulting them in from the kernel is a fifth to a third of a step
    on a CPU on 4 kB pages, a tenth on huge ones, and now and then a whole step, when the kernel looks for such pages. glibc
    reads the settings before Python starts, so a process cannot change them for itself.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = TUNABLES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def say(text: str) -> None:
    """Tells the user something that is not a result."""
    print(text, file=sys.stderr, flush=True)


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


def run(main: Callable[[], Any]) -> None:
    """Runs `main`; a UserError ends the process with one sentence and code 2, a RunError with one and code 1."""
    _tune_allocator()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "jax"))  # a second start hardly compiles
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")  # nor does it the many small programs
    try:
        main()
    except UserError as error:
        say(f"error: {error}")
        raise SystemExit(2) from None
    except RunError as error:
        say(f"failed: {error}")
        raise SystemExit(1) from None
    except MemoryError:
        say("failed: out of memory; choose a smaller --optim.batch, more --optim.microbatches, or a smaller model.")
        raise SystemExit(1) from None
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:  # a full disk, a folder that cannot be written
        say(f"failed: {error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        say("interrupted; a run goes on from its last checkpoint when the same command is given again.")
        raise SystemExit(130) from None
