"""The options of a command, as tyro derives them from a configuration: their names, what they take, and what is wrong
with what was given.

tyro parses; what it refuses is said here again, in one sentence and in this command's words. Nothing here imports JAX.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import tyro

from .errors import UserError


class Option(NamedTuple):
    """An option of a command line, or an argument without a name."""

    flag: str
    """`--optim.batch`; of an argument its name in capitals, `BANK`."""
    owner: type
    """The dataclass that it is a field of."""
    field: str
    title: str
    """Title of the group it is shown in; empty for those at the top."""
    kind: Any
    """Its type, without annotations."""
    path: tuple[str, ...]
    """Where its value is in the configuration."""

    @property
    def positional(self) -> bool:
        """Whether it is given without a name."""
        return not self.flag.startswith("-")

    @property
    def negation(self) -> str:
        """What switches off what `flag` switches on: `--decoder.no-norm-pix`."""
        stem, dot, last = self.flag.removeprefix("--").rpartition(".")
        return f"--{stem}{dot}no-{last}"

    def of(self, config: Any) -> Any:
        """Its value in a configuration."""
        for name in self.path:
            config = getattr(config, name)
        return config


def options_of(config: Any) -> list[Option]:
    """All options of a configuration, in the order of its fields.

    They are named as tyro names them: field by field, with dots between; `arg(name="")` leaves a field out of the names,
    `arg(prefix_name=False)` those before it. A text beside `arg(name="")` is the title of the fields below.
    """
    return list(_options(config, "", "", ()))


def _options(config: Any, prefix: str, title: str, path: tuple[str, ...]) -> Iterator[Option]:
    owner = type(config)
    hints = typing.get_type_hints(owner, include_extras=True)
    for field in dataclasses.fields(config):
        kind, marks = hints[field.name], ()
        if get_origin(kind) is Annotated:
            kind, *marks = get_args(kind)
        name, before = field.name.replace("_", "-"), prefix
        for mark in marks:
            name = name if getattr(mark, "name", None) is None else mark.name
            before = before if getattr(mark, "prefix_name", None) is not False else ""
        full = ".".join(part for part in (before, name) if part)
        here, value = (*path, field.name), getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            told = next((mark for mark in marks if isinstance(mark, str)), title)
            yield from _options(value, full, full if name else told, here)
        elif tyro.conf.Positional in marks:
            yield Option(name.upper(), owner, field.name, "arguments", kind, here)
        else:
            yield Option(f"--{full}", owner, field.name, title, kind, here)


# What an option takes

_ONE = {int: "a whole number", float: "a number", str: "a text", bool: "nothing"}
_SOME = {int: "whole numbers", float: "numbers", str: "texts"}
_COUNTS = {2: "two", 3: "three", 4: "four"}


def choices_of(kind: Any) -> tuple[str, ...]:
    """The words that an option takes, if it takes no others; of several words, those that each may be."""
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType, tuple):
        return tuple(word for part in get_args(kind) if part is not type(None) for word in choices_of(part))
    return ()


def wanted(kind: Any) -> str:
    """In words, what an option takes."""
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(wanted(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is tuple:
        first, *rest = get_args(kind)
        if choices := choices_of(kind):
            return f"some of {', '.join(choices)}"
        some = _SOME.get(first, "values")
        return some if rest == [...] else f"{_COUNTS.get(len(rest) + 1, len(rest) + 1)} {some}"
    if choices := choices_of(kind):
        return f"one of {', '.join(choices)}"
    return _ONE.get(kind, "a value")


# Names that are none

SYNONYMS = {
    "accum-iter": "microbatches",
    "accumulate-grad-batches": "microbatches",
    "gradient-accumulation-steps": "microbatches",
    "aa": "randaugment",
    "amp": "precision",
    "bf16": "precision",
    "fp16": "precision",
    "dtype": "precision",
    "arch": "model.depth depth",
    "layers": "depth model.depth",
    "num-layers": "depth model.depth",
    "bs": "batch",
    "b": "batch",
    "batch-size": "batch",
    "train-batch-size": "batch",
    "per-device-train-batch-size": "batch",
    "beta": "betas",
    "momentum": "betas",
    "ckpt": "start source bank model teacher",
    "checkpoint": "start source bank model teacher",
    "model": "start source teacher bank",
    "model-name-or-path": "start source bank model teacher",
    "pretrained": "start source bank model teacher",
    "weights": "start source bank model teacher",
    "input": "start source bank model",
    "init": "start source",
    "data-dir": "data",
    "data-path": "data",
    "dataset": "data",
    "dataset-dir": "data",
    "dataset-name": "data",
    "train-dir": "data",
    "images": "data",
    "drop-path-rate": "drop-path",
    "epoch": "epochs",
    "num-epochs": "epochs",
    "num-train-epochs": "epochs",
    "max-epochs": "epochs",
    "max-steps": "steps",
    "num-steps": "steps",
    "iterations": "steps",
    "force": "overwrite",
    "head-dimension": "head-dim",
    "image-size": "model.image image",
    "img-size": "model.image image",
    "input-size": "model.image image",
    "resolution": "model.image image",
    "patch-size": "patch",
    "j": "threads",
    "num-workers": "threads",
    "workers": "threads",
    "label-smoothing": "smoothing",
    "learning-rate": "base-lr",
    "lr": "base-lr",
    "blr": "base-lr",
    "log-dir": "run.root root",
    "log-freq": "log-every",
    "log-interval": "log-every",
    "logging-steps": "log-every",
    "report-to": "logger",
    "method": "constraint",
    "o": "out run.out root",
    "out-dir": "out run.out root",
    "output": "out run.out root",
    "output-dir": "out run.out root",
    "save-dir": "out run.out root",
    "name": "out run.out",
    "experiment": "out run.out",
    "num-heads": "heads model.heads",
    "ranks": "tucker.ranks",
    "reprob": "erasing",
    "random-erasing": "erasing",
    "random-seed": "seed",
    "save-freq": "save-every",
    "save-steps": "save-every",
    "val-split": "test",
    "wd": "weight-decay",
    "warmup-epochs": "warmup",
    "warmup-ratio": "warmup",
    "warmup-steps": "warmup",
    "width": "heads",
    "num-gpus": "gpus",
    "n-gpus": "gpus",
    "walltime": "time",
    "mem": "memory",
    "queue": "partition",
    "cpus-per-task": "cpus",
}
"""What others call options, and the ends of what they are called here, the likeliest first; of an argument, its name."""


REMEDIES = {
    "resume": "a run goes on where it stopped when the same command is given again",
    "auto-resume": "a run goes on where it stopped when the same command is given again",
    "num-classes": "the data tell how many classes there are",
    "nb-classes": "the data tell how many classes there are",
    "device": "JAX takes a GPU where it has one, and JAX_PLATFORMS=cpu before the command has it take the CPU",
    "no-cuda": "JAX_PLATFORMS=cpu before the command has JAX take the CPU",
    "verbose": "a run tells all it does",
}
"""What to do instead of options that others have and that are not needed here."""


def remedy(name: str, options: Sequence[Option]) -> str:
    """What to do instead of giving an option that there is not: what others call so, else the most similar."""
    word = name.lstrip("-").replace("_", "-").lower()
    last = word.rpartition(".")[2]
    for end in dict.fromkeys((word, last, *SYNONYMS.get(word, "").split(), *SYNONYMS.get(last, "").split())):
        for option in options:
            if f".{option.flag.lstrip('-').lower()}".endswith(f".{end}"):
                return _said(option)
    if last in REMEDIES:
        return REMEDIES[last]
    if members := [option.flag for option in options if option.flag.startswith(f"--{word}.")]:
        return f"there are {', '.join(members)}"
    flags = {option.flag.lstrip("-").lower(): option for option in options}
    lasts = {flag.rpartition(".")[2]: option for flag, option in reversed(flags.items())}
    for names, typed in ((flags, word), (lasts, last)):
        if close := difflib.get_close_matches(typed, names, 1, cutoff=0.7):
            return _said(names[close[0]])
    return "see --help"


def _said(option: Option) -> str:
    return f"give {option.flag} without a name before it" if option.positional else f"say {option.flag}"


def check_names(argv: Sequence[str], options: Sequence[Option]) -> None:
    """Raises UserError for the first name in a command line that is no option, with what was probably meant."""
    known = {name: option for option in options for name in (option.flag, option.negation) if not option.positional}
    for word in argv:
        name, equals, value = word.partition("=")
        if not re.match(r"--?[a-zA-Z]", name) or _is_number(word):
            continue
        option = known.get("--" + name[2:].replace("_", "-")) if name.startswith("--") else None
        if option is None:
            raise UserError(f"there is no option {name}; {remedy(name, options)}.")
        if option.kind is bool and equals:
            raise UserError(f"{name} takes no value, and not {value!r}; say {option.flag} or {option.negation}.")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


# Values that will not do

LARGEST = 2**31
"""Whole numbers are below this, as JAX's are; seeds are below 2³²."""
LONGEST = 4000
"""Letters of a text: no system knows longer paths."""


def typed(option: Option, argv: Sequence[str]) -> tuple[str, list[str]] | None:
    """How an option was spelt, and the words given to it the last time; None where it was not given by its name."""
    found = None
    for i, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if "--" + name[2:].replace("_", "-") == option.flag and word.startswith("--"):
            end = next((n for n in range(i + 1, len(argv)) if re.match(r"--?[a-zA-Z]", argv[n])), len(argv))
            found = name, [value] if equals else list(argv[i + 1 : end])
    return found


def check_values(config: Any, options: Sequence[Option], argv: Sequence[str]) -> None:
    """Raises UserError for a value that no option takes: a number that is not finite or beyond all measure, an empty text, a
    text with control characters."""
    for option in options:
        value = option.of(config)
        name = (typed(option, argv) or (option.flag, []))[0]
        most = 2 * LARGEST if option.field in ("seed", "seeds") else LARGEST
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, float) and not math.isfinite(part):
                raise UserError(f"{name} {part:g} is not finite; give a number.")
            if isinstance(part, int) and not -most < part < most:
                raise UserError(f"{name} {_shortened(part)} is out of all range; give less than {most:,}.")
            if isinstance(part, float) and abs(part) > 1e30:
                raise UserError(f"{name} {part:g} is out of all range; give a smaller number.")
            if isinstance(part, str):
                given = typed(option, argv) or (option.positional and part in argv and option.flag)
                if given and not part.strip():
                    raise UserError(f"{name} was given an empty text; give a value, or leave it out.")
                if len(part) > LONGEST:
                    raise UserError(f"{name} was given a text of {len(part):,} letters; give at most {LONGEST:,}.")
                if any(ord(letter) < 32 or ord(letter) == 127 for letter in part):
                    raise UserError(f"{name} has a control character, such as a new line, in it; leave that out.")


def _shortened(number: int) -> str:
    try:
        digits = str(number)
    except ValueError:  # Python does not write numbers of more than 4300 digits
        return "of thousands of digits"
    return digits if len(digits) < 25 else f"{digits[:8]}…{digits[-4:]}"


# What tyro refuses


def sentence(box: str, options: Sequence[Option], argv: Sequence[str]) -> str:
    """What tyro drew in a box about a mistake, as one sentence."""
    words = _unboxed(box)
    names = {name: option for option in options for name in (option.flag, option.negation)}
    if stray := re.search(r"Unrecognized options: (.*)", words):
        first = next((word for word in argv if word in stray[1]), stray[1])
        before = [word for word in argv[: argv.index(first)] if word in names] if first in argv else []
        where = f" after {before[-1]}" if before else ""
        return f"there is a word too many{where}, {first!r}; leave it out, see --help."
    at = re.search(r"(?:Error parsing |for argument ')([^\s':]+)", words)
    option = names.get(at[1].split("/")[0]) if at else None
    if option is None and at:  # tyro calls arguments without a name by their type
        option = next((option for option in options if option.positional), None)
    if option is None:
        return f"{words[:1].lower() + words[1:].rstrip(' .') or 'the command line does not parse'}; see --help."
    given = typed(option, argv)
    name, values = given or (option.flag, [])
    values = values or [word for word in argv if option.positional and not word.startswith("-")]
    if not values:
        return f"{name} needs {wanted(option.kind)}; give it, or leave {name} out."
    if choices := choices_of(option.kind):
        wrong = next((value for value in values if value not in choices), values[0])
        return f"there is no {wrong!r} for {name}; choose among {', '.join(choices)}."
    return f"{name} takes {wanted(option.kind)}, and not {' '.join(values)!r}."


def _unboxed(box: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│| ") for line in plain.splitlines() if not line.startswith(("╭", "╰", "+"))]
    words = " ".join(" ".join(line for line in lines if not re.fullmatch("[─-]+", line)).split())
    words = re.split(r"Argument helptext:|For full helptext|Got errors:", words)[0]
    return words.removeprefix("Value error ").removeprefix("Missing argument ").strip()
