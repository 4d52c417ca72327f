"""What `--help` prints: what a command does, examples, and its options, in plain text for any width of the terminal.

All of it is written elsewhere: in the docstrings of the configuration, of its fields and of its module.
"""

import ast
import functools
import inspect
import re
import shlex
import shutil
import sys
import textwrap
import types
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from .options import Option


COLUMN = 26
"""Where the texts about the options begin."""


def help_of(config: Any, options: Sequence[Option], method: str = "") -> str:
    """The help of a command with one configuration.

    **Arguments:**

    - `config`: the defaults.
    - `options`: its options.
    - `method`: the word that chose the configuration, if one did; then only the examples with this word are shown.
    """
    titles = list(dict.fromkeys(("arguments", "", *(option.title for option in options))))
    titles.sort(key=lambda title: title == LAST)  # the others stay in their order
    groups = {title: [option for option in options if option.title == title] for title in titles}
    arguments = " ".join(f"[{option.flag}]" for option in groups["arguments"])
    usage = " ".join(part for part in ("usage:", _program(), method, arguments, "[options]") if part)
    parts = [usage, _filled(_doc(type(config))), _examples(type(config), method)]
    for title, members in groups.items():
        if not members:
            continue
        about = _doc(members[0].owner) if title not in ("", "arguments") else ""
        head = f"{title or 'options'}:" + (f" {about}" if about else "")
        entries = [_entry(option, config) for option in members]
        if not title:
            entries.append(_row("-h, --help", "Show this, and stop."))
        parts.append("\n".join([_filled(head), *entries]))
    return "\n\n".join(part for part in parts if part)


LAST = "launching"
"""The title of the group that is shown after all others."""


def methods_of(about: str) -> str:
    """The help of a command that begins with one of several words, given its module's docstring, which lists them."""
    text = re.sub("^    ", "  ", about.strip(), flags=re.MULTILINE)
    return "\n\n".join((
        f"usage: {_program()} METHOD [options]",
        text,
        _filled(f"`{_program()} METHOD --help` shows the options of one."),
    ))  # fmt: skip


def _program() -> str:
    return f"python {sys.argv[0]}"


def _width() -> int:
    return min(max(shutil.get_terminal_size().columns, 40), 120)


def _wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Lines of at most `width`, longer where a word is; what a tie holds together stays together."""
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_TIE, " ") for line in lines]


_TIE = "\N{NO-BREAK SPACE}"


def _filled(text: str) -> str:
    return "\n".join(_wrapped(text, _width()))


def _row(left: str, text: str) -> str:
    """A name beside its text, which begins on the next line where the name is long."""
    lines = _wrapped(text, _width() - COLUMN)
    if len(left) > COLUMN - 4:
        lines.insert(0, "")
    first, *rest = lines or [""]
    return "\n".join([f"  {left:<{COLUMN - 2}}{first}".rstrip(), *(" " * COLUMN + line for line in rest)])


def _entry(option: Option, config: Any) -> str:
    default, text = option.of(config), _field_docs(option.owner).get(option.field, "")
    if option.kind is bool:
        left = f"{option.flag}, {option.negation}" if default else option.flag
        shown = "on" if default else ""
    else:
        left = option.flag if option.positional else f"{option.flag} {_placeholder(option.kind)}"
        shown = (
            shlex.join(map(str, default)) if isinstance(default, tuple) else str(default if default is not None else "")
        )
    return _row(left, f"{text} (default:{_TIE}{shown})".lstrip() if shown else text)


def _placeholder(kind: Any) -> str:
    """What stands for the value of an option: `N`, `X`, `TEXT`, or the words to choose among."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_placeholder(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return f"{_placeholder(parts[0])} ..." if parts[1:] == (...,) else " ".join(map(_placeholder, parts))
    return {int: "N", float: "X", str: "TEXT"}.get(kind, "VALUE")


def _doc(kind: type) -> str:
    """The docstring of a class, as one line; nothing where a dataclass has only its signature."""
    text = " ".join((kind.__doc__ or "").split())
    return "" if text.startswith(f"{kind.__name__}(") else text


def _field_docs(kind: type) -> dict[str, str]:
    """The texts below the fields of a dataclass, those it inherits included, each as one line."""
    docs: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        docs |= _classes(owner.__module__).get(owner.__qualname__, {})
    return docs


@functools.cache
def _classes(module: str) -> dict[str, dict[str, str]]:
    """The texts below the fields of all classes of a module, read from its source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, KeyError):  # built in, or typed at a prompt
        return {}
    return {node.name: dict(_texts(node)) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _texts(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            yield field.target.id, " ".join(text.value.value.split())


def _examples(kind: type, word: str = "") -> str:
    """The command lines of a module's docstring; a long one goes on in the next line as the shell has it."""
    text = inspect.getdoc(sys.modules[kind.__module__]) or ""
    found = re.findall(r"^(?:    |Command: )(python .*)$", text, re.M)
    found = [line for line in found if not word or word in line.split()]
    tied = [re.sub(r"(?<= )(-\S+) (?!-)", rf"\1{_TIE}", line) for line in found]  # an option and its value
    wide = _width() - 2
    shown = [" \\\n".join(_wrapped(line, wide, "  ", "      ")) for line in tied]
    return "\n".join(["examples:", *shown]) if shown else ""
