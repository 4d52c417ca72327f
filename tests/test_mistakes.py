"""No mistake on a command line gives more than one sentence, takes long, or takes the machine: drawn at random from a seed.

Each is made by a process that lives on, which imports JAX once; some of them by commands of their own.
"""

import json
import os
import re
import resource
import select
import subprocess
import sys
from pathlib import Path

import pytest

from . import mistakes


pytestmark = pytest.mark.fuzz
ROOT = Path(__file__).parents[1]
SECONDS, MEGABYTES = 10, 2048
"""The most that a mistake may take, of a core and of memory."""
HELD_UP = 180
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


@pytest.mark.parametrize("command", mistakes.COMMANDS)
def test_right_command_lines_go_through(maker, folder, command):
    """So that what is refused below is refused for its mistake."""
    for argv in mistakes.bases(folder)[command][:1]:
        goes_through(maker, command, argv)


@pytest.mark.large
def test_all_right_command_lines_go_through(maker, folder):
    for command, lines in mistakes.bases(folder).items():
        for argv in lines:
            goes_through(maker, command, argv)


def goes_through(maker, command, argv):
    result = maker(mistakes.Mistake("right", f"experiments.{command}", argv))
    assert result["code"] == 0 or "failed: Reached" in result["err"], (command, argv, result)


@pytest.mark.parametrize("seed", range(4))
def test_mistakes(maker, folder, seed):
    check(maker, mistakes.mistakes(seed, 80, folder))


@pytest.mark.large
@pytest.mark.parametrize("seed", range(100, 130))
def test_many_mistakes(maker, folder, seed):
    check(maker, mistakes.mistakes(seed, 100, folder))


def test_mistakes_by_the_shell(folder, tmp_path):
    """A sample, each by a command of its own."""
    for number, mistake in enumerate(mistakes.mistakes(1000, 12, folder)):
        script, errors = ROOT / (mistake.module.replace(".", "/") + ".py"), tmp_path / f"{number}.txt"
        with open(errors, "w") as err:
            command = [sys.executable, str(script), *mistake.argv]
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=err)
        resource.prlimit(process.pid, resource.RLIMIT_AS, 2 * (mistakes.MOST,))
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        result = {"code": process.returncode, "err": errors.read_text()}
        result |= {"seconds": used.ru_utime + used.ru_stime, "megabytes": used.ru_maxrss / 1024}
        assert fault(result) == "", (mistake, result)
