"""No mistake on a command line gives more than one sentence, takes long, or takes the machine: drawn at random from a seed.

Each is made by a process that lives on, which imports JAX once; some of them by commands of their own.
"""

import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from . import mistakes


ROOT = Path(__file__).parents[1]
SECONDS, MEGABYTES = 10, 2048
"""The most that a mistake may take, of a core and of memory."""
HELD_UP = 90
"""Seconds after which a process is held up, on however busy a machine."""


class Maker:
    """A process that makes mistakes, and is replaced when one of them has ended it, or holds it up."""

    def __init__(self, folder):
        self.folder, self.errors, self.process = folder, folder / "errors.txt", None

    def __call__(self, mistake):
        if self.process is None:
            self.process = self.begun()
        self.process.stdin.write(json.dumps([mistake.module, mistake.argv]) + "\n")
        if select.select([self.process.stdout], [], [], HELD_UP)[0] and (line := self.process.stdout.readline()):
            return json.loads(line)
        self.close()
        return {"code": "none", "err": self.errors.read_text()[-300:], "seconds": HELD_UP, "megabytes": 0}

    def begun(self):
        paths = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
        env = os.environ | {"GLIBC_TUNABLES": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
        with open(self.errors, "a") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.mistakes", str(self.folder)], cwd=ROOT, env=env, text=True, bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        return process

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("mistakes")
    mistakes.lay(made)
    return made


@pytest.fixture
def maker(folder):
    maker = Maker(folder)
    yield maker
    maker.close()


def fault(result):
    """What is wrong with what a mistake came to; nothing if it is told in one sentence."""
    lines = result["err"].splitlines()
    sentences = [line for line in lines if line.startswith("error: ")]
    if result["code"] != 2:
        return f"code {result['code']}"
    if len(sentences) != 1 or lines[-1] != sentences[0]:
        return "not one sentence"
    if re.search(r"Traceback|\x1b|0x[0-9a-f]{6}|[\u2500-\u257f]|\w+Config\(|\w+Options\(", result["err"]):
        return "not plain"
    if len(sentences[0]) > 1000 or not sentences[0].endswith("."):
        return "no sentence"
    if result["seconds"] > SECONDS:
        return f"{result['seconds']:.0f} s"
    return f"{result['megabytes']:.0f} MB" if result["megabytes"] > MEGABYTES else ""


def check(maker, some):
    faults = []
    for mistake in some:
        result = maker(mistake)
        if wrong := fault(result):
            said = result["err"].strip().splitlines()[-1:]
            faults.append(f"{wrong}: [{mistake.kind}] {mistake.module} {mistake.argv}: {said}")
    assert not faults, "\n".join(faults)


def test_right_command_lines_go_through(maker, folder):
    """So that what is refused below is refused for its mistake."""
    for command, lines in mistakes.bases(folder).items():
        for argv in lines:
            result = maker(mistakes.Mistake("right", f"experiments.{command}", argv))
            assert result["code"] == 0 or "failed: Reached" in result["err"], (command, argv, result)


@pytest.mark.parametrize("seed", range(4))
def test_mistakes(maker, folder, seed):
    check(maker, mistakes.mistakes(seed, 80, folder))


@pytest.mark.large
@pytest.mark.parametrize("seed", range(100, 130))
def test_many_mistakes(maker, folder, seed):
    check(maker, mistakes.mistakes(seed, 100, folder))


def test_mistakes_by_the_shell(folder):
    """A sample, each by a command of its own."""
    for mistake in mistakes.mistakes(1000, 12, folder):
        if any("\udcff" in word or "\0" in word for word in mistake.argv):
            continue
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(ROOT / (mistake.module.replace(".", "/") + ".py")), *mistake.argv],
            cwd=folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        result = {"code": done.returncode, "err": done.stderr, "seconds": seconds, "megabytes": 0}
        assert fault(result) == "", (mistake, done.stderr)
