"""The command line: names, help, mistakes and values. What happens to errors and Ctrl-C: `tests/test_entry.py`."""

import dataclasses
import importlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from experiments import baseline, export, pretrain
from weight_templates import cli, help, launch, options
from weight_templates.errors import UserError


ROOT = Path(__file__).parents[1]
COMMANDS = [
    f"{folder}.{path.stem}"
    for folder in ("experiments", "ablations")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "__main__" in path.read_text()
]


def defaults_of(name):
    """The configurations that a command starts from, by what chooses them, with the options of launching if it has them."""
    module = importlib.import_module(name)
    if hasattr(module, "METHODS"):
        return {(method,): launch._with_options(module.method(method), name) for method in module.METHODS}
    if hasattr(module, "PRESETS"):
        return {("--preset", preset): launch._with_options(config, name) for preset, config in module.PRESETS.items()}
    return {(): module.Config()}


ALL = [(name, words) for name in COMMANDS for words in defaults_of(name)]


def of(name, words):
    default = defaults_of(name)[words]
    return default, options.options_of(default)


def helped(name, words, capsys, monkeypatch, columns=80):
    """What `--help` prints."""
    monkeypatch.setenv("COLUMNS", str(columns))
    module = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [name.replace(".", "/") + ".py", *words, "--help"])
    with pytest.raises(SystemExit) as stop:
        launch.execute(module)
    assert stop.value.code == 0
    return capsys.readouterr().out


def fails(argv, module=pretrain):
    with pytest.raises(UserError) as error:
        launch.parse(module, argv)
    return str(error.value)


# Names


@pytest.mark.parametrize(("name", "words"), ALL)
def test_options_are_named_as_tyro_names_them(name, words, capsys):
    """tyro's own help is the witness: all its options, and no others, are known here."""
    default, found = of(name, words)
    with pytest.raises(SystemExit):
        tyro.cli(type(default), args=["--help"], default=default)
    told = set(re.findall(r"(?:^\W? |, )(--[a-z][\w.-]*)", capsys.readouterr().out, re.M)) - {
        "--help",
        "--help-verbose",
    }
    ours = {flag for option in found for flag in (option.flag, option.negation) if not option.positional}
    negations = {option.negation for option in found if option.kind is not bool}
    assert told == ours - negations
    for option in found:
        assert option.of(default) == option.of(defaults_of(name)[words])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--batch-size", "say --optim.batch"),
        ("--batch_size", "say --optim.batch"),
        ("--lr", "say --optim.base-lr"),
        ("--learning-rate", "say --optim.base-lr"),
        ("--optim.lr", "say --optim.base-lr"),
        ("--epochs", "say --optim.epochs"),
        ("--output-dir", "say --run.out"),
        ("--dataset", "say --data"),
        ("--num-workers", "say --data.threads"),
        ("-j", "say --data.threads"),
        ("--wd", "say --optim.weight-decay"),
        ("--weight-decay", "say --optim.weight-decay"),
        ("--optim.bse-lr", "say --optim.base-lr"),
        ("--img-size", "say --model.image"),
        ("--ranks", "say --tucker.ranks"),
        ("--resume", "a run goes on where it stopped when the same command is given again"),
        ("--decoder", "there are --decoder.depth, --decoder.width, --decoder.heads, --decoder.mask-ratio, "
         "--decoder.norm-pix"),
        ("--quux", "see --help"),
    ],
)  # fmt: skip
def test_others_names_are_answered_with_ours(typed, meant):
    assert fails([typed, "3"]) == f"there is no option {typed}; {meant}."
    assert fails(["--seed", "1", f"{typed}=3"]) == f"there is no option {typed}; {meant}."


def test_arguments_have_no_names():
    assert fails(["--model", "x"], finetune()) == "there is no option --model; give START without a name before it."
    assert fails(["front", "--checkpoint=x"], baseline).endswith("; give SOURCE without a name before it.")
    assert fails(["wave", "--batch-size=x"], baseline).endswith("; say --optim.batch.")


def finetune():
    return importlib.import_module("experiments.finetune")


def test_every_synonym_is_of_some_use():
    known = [of(name, words)[1] for name, words in ALL]
    idle = []
    for word, ends in options.SYNONYMS.items():
        answers = {options.remedy(f"--{word}", some).lower() for some in known}
        idle += [(word, end) for end in ends.split() if not any(re.search(rf"\b{end}\b", said) for said in answers)]
    assert idle == []


def test_no_synonym_hides_an_option():
    """Where an option has a name, that is what it is called."""
    for name, words in ALL:
        for option in of(name, words)[1]:
            if not option.positional:
                assert options.remedy(option.flag, of(name, words)[1]) == f"say {option.flag}"


# Values


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--optim.base-lr inf", "--optim.base-lr inf is not finite; give a number."),
        ("--optim.base_lr=nan", "--optim.base_lr nan is not finite; give a number."),
        ("--optim.base-lr -inf", "--optim.base-lr -inf is not finite; give a number."),
        ("--optim.betas 0.9 nan", "--optim.betas nan is not finite; give a number."),
        ("--optim.ema inf", "--optim.ema inf is not finite; give a number."),
        ("--optim.base-lr 1e300", "--optim.base-lr 1e+300 is out of all range; give a smaller number."),
        ("--optim.base-lr abc", "--optim.base-lr takes a number, and not 'abc'."),
        ("--optim.base-lr", "--optim.base-lr needs a number; give it, or leave --optim.base-lr out."),
        ("--seed 3 --optim.steps", "--optim.steps needs a whole number; give it, or leave --optim.steps out."),
        ("--optim.base-lr 1 2", "there is a word too many after --optim.base-lr, '2'; leave it out, see --help."),
        ("--model.depth 1e3", "--model.depth takes a whole number, and not '1e3'."),
        ("--model.depth 2147483648", "--model.depth 2147483648 is out of all range; give less than 2,147,483,648."),
        ("--model.depth -2147483648", "--model.depth -2147483648 is out of all range; give less than 2,147,483,648."),
        ("--scaling.heads 1 9999999999", "--scaling.heads 9999999999 is out of all range; give less than 2,147,483,648."),
        ("--seed 4294967296", "--seed 4294967296 is out of all range; give less than 4,294,967,296."),
        ("--seed 1" + 40 * "0", "--seed 10000000…0000 is out of all range; give less than 4,294,967,296."),
        ("--data ''", "--data was given an empty text; give a value, or leave it out."),
        ("--data=", "--data was given an empty text; give a value, or leave it out."),
        ("--run.root ''", "--run.root was given an empty text; give a value, or leave it out."),
        ("--sbatch a=b ''", "--sbatch was given an empty text; give a value, or leave it out."),
        ("--sbatch a=b\nc", "--sbatch has a control character, such as a new line, in it; leave that out."),
        ("--data \x1b[31m", "--data has a control character, such as a new line, in it; leave that out."),
        ("--data " + 5000 * "a", "--data was given a text of 5,000 letters; give at most 4,000."),
        ("--layout foo", "there is no 'foo' for --layout; choose among unified, components."),
        ("--scaling.scope bar", "there is no 'bar' for --scaling.scope; choose among submodel, scalers, off."),
        ("--constraint", "--constraint needs one of none, linear, kronecker, svd, tucker; give it, or leave --constraint out."),
        ("--tucker.ranks 1 2", "--tucker.ranks takes three whole numbers, and not '1 2'."),
        ("--optim.betas a b", "--optim.betas takes two numbers, and not 'a b'."),
        ("--dry-run=yes", "--dry-run takes no value, and not 'yes'; say --dry-run or --no-dry-run."),
        ("--preset huge", "there is no preset 'huge'; choose --preset among tiny, small, paper."),
        ("foo bar --seed 3", "there is a word too many, 'foo'; leave it out, see --help."),
    ],
)  # fmt: skip
def test_values_that_will_not_do(argv, told):
    words = [word.strip("'") for word in argv.split(" ")]
    assert fails(words) == told


def test_the_same_is_said_where_tyro_draws_plain_boxes():
    """It does so on terminals that have no others."""
    lines = ["foo bar", "--optim.betas 1", "--seed", "--layout foo", "--seed x"]
    code = (
        "import sys\nfrom weight_templates import launch\nfrom experiments import pretrain\nfor line in sys.argv[1:]:\n"
        "    try: launch.parse(pretrain, line.split())\n    except Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *lines],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout.splitlines() == [fails(line.split()) for line in lines]


def test_values_that_do():
    asked = launch.parse(
        pretrain, ["--seed", "4294967295", "--optim.base-lr=1e-6", "--optim.ema", "None", "--optim.steps=3"]
    )
    assert asked.config.seed == 2**32 - 1
    assert asked.config.optim == dataclasses.replace(pretrain.Config().optim, base_lr=1e-6, steps=3)


def test_an_empty_argument_is_refused_and_an_absent_one_is_not():
    assert cli.parse({"default": export.Config()}, []).model == ""
    with pytest.raises(UserError, match="MODEL was given an empty text; give a value, or leave it out"):
        cli.parse({"default": export.Config()}, [""])
    with pytest.raises(UserError, match="MODEL was given an empty text"):
        cli.parse({"default": export.Config()}, [" ", "--out", "x"])


@dataclasses.dataclass(frozen=True)
class Inner:
    """Some options."""

    n: int = 1
    """A number
    that is told in two lines."""
    m: float | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    """An outer configuration."""

    flat: Annotated[Inner, tyro.conf.arg(name="")] = Inner()
    inner: Inner = Inner(n=7)
    kind: Annotated[Literal["a", "b"], tyro.conf.arg(name="letter")] = "a"
    """One of two."""
    short: Annotated[Inner, tyro.conf.arg(prefix_name=False, name="s")] = Inner(3, 0.5)
    words: tuple[str, ...] = ("x y", "z")
    on: bool = True
    """Whether it is."""
    off: bool = False


def test_options_by_hand():
    """Names, places and what is wanted, worked out by hand."""
    found = {option.flag: option for option in options.options_of(Outer())}
    assert list(found) == [
        *("--n", "--m", "--inner.n", "--inner.m", "--letter", "--s.n", "--s.m", "--words", "--on", "--off"),
    ]
    assert [option.title for option in found.values()] == ["", "", "inner", "inner", "", "s", "s", "", "", ""]
    assert found["--s.m"].of(Outer()) == 0.5
    assert found["--s.m"].path == ("short", "m")
    assert found["--on"].negation == "--no-on"
    kinds = ["--n", "--m", "--letter", "--words"]
    assert [options.wanted(found[flag].kind) for flag in kinds] == [
        "a whole number",
        "a number",
        "one of a, b",
        "texts",
    ]


def test_help_by_hand(capsys, monkeypatch):
    """All of it, for a configuration of this file; at the least width there is."""
    monkeypatch.setenv("COLUMNS", "1")
    monkeypatch.setattr(sys, "argv", ["x.py"])
    told = help.help_of(Outer(), options.options_of(Outer()))
    assert (
        told
        == """\
usage: python x.py [options]

An outer configuration.

options:
  --n N                   A number that
                          is told in two
                          lines.
                          (default: 1)
  --m X
  --letter a|b            One of two.
                          (default: a)
  --words TEXT ...        (default: 'x
                          y' z)
  --on, --no-on           Whether it is.
                          (default: on)
  --off
  -h, --help              Show this, and
                          stop.

inner: Some options.
  --inner.n N             A number that
                          is told in two
                          lines.
                          (default: 7)
  --inner.m X

s: Some options.
  --s.n N                 A number that
                          is told in two
                          lines.
                          (default: 3)
  --s.m X                 (default: 0.5)"""
    )


# Help


@pytest.mark.parametrize(("name", "words"), ALL)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_is_reflowed(name, words, columns, capsys, monkeypatch):
    """No line is wider than the terminal; every text is there in full; nothing is said of defaults that are none."""
    told = helped(name, words, capsys, monkeypatch, columns)
    assert max(map(len, told.splitlines())) <= columns
    assert not re.search(r"\(default: *\)|\(default: (None|False|'')\)|[\x1b\u2500-\u257f]", told)
    flowing = " ".join(told.split())
    for option in of(name, words)[1]:
        assert option.flag in flowing
        for text in filter(None, [field_text(option)]):
            assert text in flowing
    lines = told.splitlines()
    for line, after in itertools.pairwise(lines):  # a line ends where the next word has no place in it
        if re.match(" {26}[^ ]", after) and line[: help.COLUMN - 1].strip() == "":
            word = re.match(r" *(\(default: \S+|\S+)", after)
            assert len(line) + 1 + len(word[1]) > columns


def field_text(option):
    """The text below a field, as Python's own tokens have it."""
    source = Path(sys.modules[option.owner.__module__].__file__).read_text()
    owners = [kind.__name__ for kind in option.owner.__mro__ if kind is not object]
    for owner in owners:
        body = re.search(rf"^class {owner}\b.*?(?=^\S|\Z)(?:^\)?.*?(?=^\S|\Z))?", source, re.M | re.S)
        if body and (
            found := re.search(
                rf'^    {option.field}: [^\n]*(?:\n(?!    """)[^\n]*)*?\n    """(.*?)"""', body[0], re.M | re.S
            )
        ):
            between = found[0].partition("\n")[2].partition('    """')[0]
            return None if re.search(r"^    \w+:", between, re.M) else " ".join(found[1].split())
    return None


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples_and_launching_last(name, capsys, monkeypatch):
    module = importlib.import_module(name)
    words = ALL[[command for command, _ in ALL].index(name)][1]
    told = helped(name, () if hasattr(module, "METHODS") else words, capsys, monkeypatch)
    whole = told.replace(" \\\n     ", "")
    examples = re.findall("^(?:    |Command: )(python .*)$", module.__doc__, re.M)
    assert all(f"\n  {line}\n" in whole for line in examples)
    if not hasattr(module, "METHODS"):
        assert ("examples:" in told) == bool(examples)
        titles = re.findall(r"^([a-z]+):", told, re.M)
        assert ("launching" in titles) == hasattr(module, "PRESETS")
        assert "launching" not in titles[:-1]


def test_help_of_a_command_with_methods(capsys, monkeypatch):
    told = helped("experiments.baseline", (), capsys, monkeypatch)
    assert told.startswith("usage: python experiments/baseline.py METHOD [options]\n")
    assert "\n  front              low frequencies of the weights\n" in told
    told = helped("experiments.baseline", ("dmae",), capsys, monkeypatch)
    assert told.startswith("usage: python experiments/baseline.py dmae [SOURCE] [options]\n")
    examples = told.partition("examples:\n")[2].partition("\n\n")[0]
    assert examples == "  python experiments/baseline.py dmae SOURCE --depth 6 --heads 6 --data PATH"


def test_help_wins_over_mistakes(capsys, monkeypatch):
    helped("experiments.pretrain", ("--quux", "--seed"), capsys, monkeypatch)
    helped("experiments.pretrain", ("--preset", "paper"), capsys, monkeypatch)


@pytest.mark.parametrize("name", ["experiments/export.py", "experiments/pretrain.py", "experiments/baseline.py"])
def test_help_imports_nothing_heavy(name):
    """So that it answers at once."""
    look = "import sys, atexit, runpy; atexit.register(lambda: print([m for m in {} if m in sys.modules])); "
    look = look.format(["jax", "equinox", "matplotlib", "pandas", "PIL", "pyarrow", "scipy"])
    code = look + f"sys.argv = [{name!r}, '--help']; runpy.run_path({name!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.stdout.startswith("usage: python experiments/")
    assert done.stdout.endswith("\n[]\n")
    assert done.stderr == ""


def test_a_method_is_said_first():
    told = "say first which of scratch, mimetic, weight-selection, isomorphic-pruning, front, hydravit, decomposed, dmae, wave, tleg, fine."
    assert fails([], baseline) == f"nothing was chosen; {told}"
    assert fails(["--depth", "3", "wave"], baseline) == f"nothing was chosen; {told}"
    assert fails(["waves"], baseline) == f"there is no 'waves' here; {told}"
    name, config = cli.parse_command(baseline.METHODS, baseline.method, "", ["wave", "--depth=3"])
    assert (name, config) == ("wave", baseline.method("wave", depth=3))
