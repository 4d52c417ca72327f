"""The way into every command: Ctrl-C is heard from the first moment, and whatever goes wrong ends in one sentence.

A command's file begins, before its imports, with

    if __name__ == "__main__":  # before the imports, which take a second: Ctrl-C is heard meanwhile
        try:
            from weight_templates.entry import command
        except ModuleNotFoundError:
            raise SystemExit("failed: this Python has no weight_templates; …") from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        command("experiments.export")

as `experiments/export.py` does. `command` does not return: it imports the module by its name, and runs it. Only the
standard library is imported here, so that what comes first is quick, and a missing package is told in one sentence, too.

Exit codes: 2 for a mistake in what was asked for, 1 for a run that failed, 130 for Ctrl-C. WEIGHT_TEMPLATES_DEBUG=1 shows
the traceback of any of them.
"""

import codecs
import contextlib
import errno
import importlib
import os
import re
import select
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from .errors import RunError, UserError


DEBUG = "WEIGHT_TEMPLATES_DEBUG"
"""The variable of the environment that has tracebacks shown."""


def command(module: str) -> NoReturn:
    """Runs the command that a module is, see `weight_templates.launch.execute`; ends the process."""
    _listen()
    os.register_at_fork(after_in_child=_forget)
    _speak()
    run(lambda: _launch(module))
    raise SystemExit


def _launch(module: str) -> None:
    from . import launch

    launch.execute(importlib.import_module(module))


def run(main: Callable[[], Any]) -> None:
    """Runs `main`; if it fails, ends the process with one sentence: code 2 for a mistake of the user's, code 1 for all else.

    While it runs, Ctrl-C ends the process at once, with code 130, unless a handler of another's is set, as training's is.
    """
    with _listening():
        try:
            _tune_allocator()
            _keep_programs()
            main()
        except Exception as error:
            words, code = told(error)
            if words:
                say(words)
            raise SystemExit(code) from None
        except KeyboardInterrupt:  # from another's handler
            leave()


# What went wrong

EXTRAS = {
    "datasets": "hub",
    "tensorboardX": "track",
    "wandb": "track",
    "torch": "torch",
    "jax2onnx": "onnx",
    "onnx": "onnx",
    "onnxruntime": "onnx",
}
"""The extra that each optional package comes with."""


PATHS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError)
"""What is wrong with a path, and not with a disk."""


def told(error: Exception) -> tuple[str, int]:
    """The one sentence that an error ends with, and the exit code. The sentence is empty where nobody is left to read it."""
    if os.environ.get(DEBUG):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, UserError):
        return f"error: {plain(str(error))}", 2
    if isinstance(error, RunError):
        return f"failed: {plain(str(error))}", 1
    words = plain(str(error))
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in words:
        asked = re.search(r"[Aa]llocat\w* ([\d.]+ ?(?:[KMGT]i?B|bytes))", words)
        more = f" ({asked[1]} were asked for)" if asked else ""
        return (
            f"failed: out of memory{more}; choose a smaller network or image, or in training a smaller --optim.batch or more "
            "--optim.microbatches."
        ), 1
    if isinstance(error, BrokenPipeError):  # `--help | head`
        _to_nowhere(sys.stdout)
        return "", 141
    if isinstance(error, OSError):  # a full disk, a folder that cannot be written
        with contextlib.suppress(OSError, ValueError, AttributeError):
            _to_nowhere(sys.stdout if _is_broken(sys.stdout) else None)
        where = f"{plain(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        if (where and isinstance(error, PATHS)) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS):
            return f"error: {where}{error.strerror}; give another path.", 2
        return f"failed: {where}{error.strerror or words}.", 1
    if isinstance(error, ImportError) and error.name and not error.name.startswith("weight_templates"):
        package = error.name.partition(".")[0]
        extra = f"'.[{EXTRAS[package]}]'" if package in EXTRAS else "."
        return (
            f"failed: {package} is not installed for {sys.executable}; run `{sys.executable} -m pip install -e {extra}`, or "
            "call the Python of the environment that has it."
        ), 1
    asked = os.environ.get("JAX_PLATFORMS")
    if (asked or "backend" in words) and not _has_device():
        if asked:
            return f"error: JAX finds no device for JAX_PLATFORMS={plain(asked)}; unset it, or set it to cpu.", 2
        return f"failed: JAX finds no device to compute on ({words}); JAX_PLATFORMS=cpu has it take the CPU.", 1
    if isinstance(error, OverflowError):
        return f"error: a number is too large to compute with ({words}); give a smaller one.", 2
    kind = type(error).__name__
    what = f"failed: {kind} ({words.rstrip('.')})" if words else f"failed: {kind}"
    return f"{what}, a fault of the program and not of yours; {_reported(error)}.", 1


def _has_device() -> bool:
    """Whether JAX can compute at all; it does not always say so when it cannot, and not in one way."""
    if "jax" not in sys.modules:
        return True
    try:
        return bool(sys.modules["jax"].devices())
    except Exception:
        return False


def _reported(error: Exception) -> str:
    """Writes a traceback to a file; returns words on where it is."""
    import tempfile  # which takes as long to import as all else here
    import traceback

    text = f"{sys.argv}\n{sys.version}\n" + "".join(traceback.format_exception(error))
    name = time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}.txt"
    folders = [Path(tempfile.gettempdir())]
    with contextlib.suppress(Exception):
        from .files import cache_folder

        folders.insert(0, cache_folder() / "errors")
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, errors="backslashreplace")
            return f"its traceback is in {folder / name}"
    return f"{DEBUG}=1 shows its traceback"


_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_ADDRESS = re.compile(r"\s*\bat 0x[0-9a-fA-F]{6,}|\b0x[0-9a-fA-F]{9,}\b")


def plain(text: str, most: int = 800) -> str:
    """A message as one line without what no message should have: escape codes, addresses in memory, more than `most`
    characters."""
    text = " ".join(_visible(_ADDRESS.sub("", text)).split())
    return text if len(text) <= most else f"{text[: most * 2 // 3]} … {text[-most // 4 :]}"


# Words


def say(text: str) -> None:
    """Tells the user something that is not a result, without whatever escape codes a file's name may have brought."""
    if sys.stderr is not None:
        print(_visible(text), file=sys.stderr, flush=True)


def _visible(text: str) -> str:
    text = _ESCAPE.sub("", text)
    return "".join(c if c.isspace() or unicodedata.category(c) != "Cc" else "?" for c in text.replace("\r", " "))


def _speak() -> None:
    """Has both streams write what the terminal cannot show in letters that it can, and line by line: whenever the process
    ends, what was printed has been."""
    codecs.register_error("weight_templates.plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # closed, or replaced by something simpler
            stream.reconfigure(errors="weight_templates.plainer", line_buffering=True)  # pyright: ignore


_PLAINER = {
    "×": "x",
    "–": "-",
    "—": "-",
    "─": "-",
    "│": "|",
    "−": "-",
    "’": "'",
    "“": '"',
    "”": '"',
    "→": "->",
    "≥": ">=",
}


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: the nearest ASCII to what a terminal cannot show."""
    assert isinstance(error, UnicodeEncodeError)
    out = ""
    for letter in error.object[error.start : error.end]:
        nearest = _PLAINER.get(letter) or unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        raised = "^" if unicodedata.decomposition(letter).startswith("<super>") and not out[-1:].isdigit() else ""
        out += raised + nearest if nearest else "?"
    return out, error.end


def _is_broken(stream: Any) -> bool:
    try:
        stream.flush()
    except OSError:
        return True
    return False


def _to_nowhere(stream: Any) -> None:
    """Has a stream that cannot be written to take what it still holds to nowhere, so that nothing is told at exit."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# Ctrl-C

INTERRUPTED = "interrupted; a run goes on from its last checkpoint when the same command is given again."
_leaving = threading.Lock()


def leave(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """The handler of SIGINT while a command runs: ends the process, there and then, with code 130.

    It raises nothing, since an exception raised between any two instructions may be swallowed, as one in a callback of
    JAX's garbage collection is, or told as a fault by what it meets. All that is saved is saved whole or not at all, so the
    process may end anywhere.
    """
    if _leaving.acquire(blocking=False):
        with contextlib.suppress(OSError):
            os.write(2, (("\n" if os.isatty(2) else "") + f"{INTERRUPTED}\n").encode())
        os._exit(130)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Meanwhile the first Ctrl-C raises KeyboardInterrupt, for code that has something to do then."""
    before = signal.getsignal(signal.SIGINT)
    if before is not leave:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """`_listen`, and its undoing where it did something: the process may be another's, such as a test's."""
    writer = _listen()
    try:
        yield
    finally:
        if writer is not None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(-1)
            os.close(writer)


def _listen() -> int | None:
    """Makes `leave` the handler of SIGINT, unless there is another than Python's own; returns the pipe to close in the end.

    Python calls a handler between two instructions of the main thread, which may be long in coming: a program may take
    half a minute to compile. A thread hears of signals, too, and leaves for it.
    """
    if threading.current_thread() is not threading.main_thread():
        return None  # no other thread may set handlers
    writer = None
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(reader,), daemon=True).start()
        signal.signal(signal.SIGINT, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # as `_tune_allocator` leaves it
    return writer


def _watch(reader: int) -> None:
    """Leaves at the first SIGINT while `leave` is its handler, and at the second whatever the handler."""
    heard = 0
    while numbers := os.read(reader, 64):
        heard += numbers.count(signal.SIGINT)
        if heard > 1 or (heard and signal.getsignal(signal.SIGINT) is leave):
            leave()
        if heard and not select.select([reader], [], [], 2)[0]:
            say("the step under way is finished first, which may take a while; Ctrl-C again ends it at once.")
    os.close(reader)


def _forget() -> None:
    """A fork has no such thread, and must not write into its parent's pipe."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


# The process

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
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C waits until there is a handler again
        with contextlib.suppress(OSError):  # it is slower as it is, and that is all
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _keep_programs() -> None:
    """Has JAX keep compiled programs, where there is a place for them: a second start hardly compiles."""
    from .files import cache_folder

    with contextlib.suppress(UserError, OSError):  # no home, or not ours to write to
        folder = cache_folder() / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")  # many small programs, too
