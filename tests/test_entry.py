"""The way into a command: what every error ends in, terminals of any kind, and Ctrl-C at any moment."""

import ast
import errno
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from weight_templates import entry, files
from weight_templates.errors import RunError, UserError
from weight_templates.training import Interrupt


ROOT = Path(__file__).parents[1]
IDIOM = """\
if __name__ == "__main__":  # before the imports, which take a second: Ctrl-C is heard meanwhile
    try:
        from weight_templates.entry import command
    except ModuleNotFoundError:
        raise SystemExit(
            "failed: this Python has no weight_templates; install it as README.md says, or call one that has it."
        ) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command("{}")

"""


def run(code, *words, env=None, **options):
    """A process of its own, as the shell starts it: it starts itself again, and no handler is another's."""
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | (env or {})
    command = [sys.executable, *(["-c", code] if isinstance(code, str) else map(str, [code])), *map(str, words)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        **options,
    )


def ended(process, timeout=300):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def in_main(body, **options):
    """A process whose `main` is `body`, under `entry.run`."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return run(
        f"import os, signal, sys, time\nfrom weight_templates import entry\ndef main():\n{lines}entry.run(main)",
        **options,
    )


def test_commands_begin_alike():
    """Whatever file names `entry.command` does so before all imports, and names itself."""
    found = [
        path
        for path in ROOT.glob("*/*.py")
        if "entry import command" in path.read_text() and path.parent.name != "tests"
    ]
    assert found
    for path in found:
        text = path.read_text()
        assert IDIOM.format(f"{path.parent.name}.{path.stem}") in text
        before = ast.parse(text.partition(IDIOM[:20])[0])
        assert not [node for node in before.body if isinstance(node, ast.Import | ast.ImportFrom)]


# Errors


SMALLER = "choose a smaller network or image, or in training a smaller --optim.batch or more --optim.microbatches."


class JaxRuntimeError(RuntimeError):
    """As JAX has it."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("a is b; say c."), 2, "error: a is b; say c."),
        (RunError("the loss is nan; lower it."), 1, "failed: the loss is nan; lower it."),
        (MemoryError(), 1, "failed: out of memory; " + SMALLER),
        (
            JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1234567 bytes.\nBufferAssignment"),
            1,
            "failed: out of memory (1234567 bytes were asked for); " + SMALLER,
        ),
        (
            JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 98.5GiB."),
            1,
            "failed: out of memory (98.5GiB were asked for); " + SMALLER,
        ),
        (
            MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,) and data type float64"),
            1,
            "failed: out of memory (7.45 GiB were asked for); " + SMALLER,
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "failed: No space left on device."),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2, "error: a/b: Permission denied; give another path."),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), 2, "error: a: File name too long; give another path."),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 1, "failed: a: No space left on device."),
        (OSError(errno.EIO, "Input/output error", b"a\xffb"), 1, "failed: a\udcffb: Input/output error."),
        (
            OverflowError("Python int too large to convert to C long"),
            2,
            "error: a number is too large to compute with (Python int too large to convert to C long); give a smaller one.",
        ),
        (
            ModuleNotFoundError("No module named 'datasets'", name="datasets"),
            1,
            f"failed: datasets is not installed for {sys.executable}; run `{sys.executable} -m pip install -e '.[hub]'`, or call "
            "the Python of the environment that has it.",
        ),
        (
            ModuleNotFoundError("No module named 'numpy.core'", name="numpy.core"),
            1,
            f"failed: numpy is not installed for {sys.executable}; run `{sys.executable} -m pip install -e .`, or call the Python "
            "of the environment that has it.",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
)  # fmt: skip
def test_what_an_error_ends_in(error, code, words, monkeypatch):
    monkeypatch.setattr(entry, "_to_nowhere", lambda stream: None)
    assert entry.told(error) == (words, code)


def test_an_error_nobody_foresaw(tmp_path, monkeypatch):
    """Its traceback is in a file, of the cache or else of the system's temporary folder; one line says so."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for broken in (False, True):
        if broken:
            monkeypatch.setattr(files, "cache_folder", lambda: 1 / 0)
        try:
            {}["a\nkey"]
        except KeyError as error:
            words, code = entry.told(error)
        assert code == 1
        told = re.fullmatch(
            r"failed: KeyError \('a\\nkey'\), a fault of the program and not of yours; its traceback is in (.*)\.",
            words,
        )
        text = Path(told[1]).read_text()
        assert "Traceback" in text
        assert '{}["a\\nkey"]' in text
        assert (tmp_path in Path(told[1]).parents) == (not broken)
        Path(told[1]).unlink()


def test_an_error_nobody_foresaw_in_a_process(tmp_path):
    code, out, err = ended(in_main("1 / 0", env={"XDG_CACHE_HOME": str(tmp_path)}))
    assert (code, out) == (1, "")
    assert err.startswith("failed: ZeroDivisionError (division by zero), a fault of the program and not of yours; its ")
    assert len(err.splitlines()) == 1
    code, _, err = ended(in_main("1 / 0", env={"XDG_CACHE_HOME": str(tmp_path), entry.DEBUG: "1"}))
    assert code == 1
    assert err.startswith("Traceback (most recent call last)")
    assert err.splitlines()[-1].startswith("failed: ZeroDivisionError")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\n  b\t c", "a b c"),
        ("\x1b[31mred\x1b[0m and \x1b]0;title\x07done\x1b(B", "red and done"),
        ("<Foo object at 0x7f3a12cd45e0> of 0x10", "<Foo object> of 0x10"),
        ("ring\x07 back\x08 \x9b31m \x7f", "ring? back? ?31m ?"),
        ("größer, 2³² × …", "größer, 2³² × …"),
        (1000 * "a" + 1000 * "b", 533 * "a" + " … " + 200 * "b"),
    ],
)
def test_plain(text, kept):
    assert entry.plain(text) == kept


def test_what_is_said_has_no_escape_codes(capsys):
    entry.say("\nimage \x1b[2Ja.jpg\rb\nnext")
    assert capsys.readouterr().err == "\nimage a.jpg b\nnext\n"


# Terminals, and what is around the process


TEXT = "größerß, 2³² × 3 – … ’quoted’ → 字 \udcff"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "gro?er?, 2^32 x 3 - ... 'quoted' -> ? ?"),
        ("latin-1", "größerß, 2³² × 3 - ... 'quoted' -> ? ?"),
        ("utf-8", "größerß, 2³² × 3 – … ’quoted’ → 字 ?"),
    ],
    ids=["ascii", "latin", "unicode"],
)
def test_letters_that_a_terminal_has_not(encoding, expected):
    """Nothing crashes on them; the nearest letters stand for them."""
    code = f"from weight_templates import entry; entry._speak(); print({TEXT!r}); entry.say({TEXT!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
    )
    assert (done.stdout.decode(encoding), done.stderr.decode(encoding)) == (f"{expected}\n", f"{expected}\n")


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_ALL": "C"}, {"LANG": "C"}])
def test_help_and_mistakes_on_old_terminals(env):
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    for words, code in (["--help"], 0), (["--format", "x…"], 2):
        done = subprocess.run(
            [sys.executable, "experiments/export.py", *words], cwd=ROOT, capture_output=True, env=plain | env
        )
        assert done.returncode == code
        out = (done.stdout + done.stderr).decode("ascii" if "PYTHONIOENCODING" in env else "utf-8")
        assert not re.search("[\u2500-\u257f]|---|Traceback", out)
        assert ("usage: " if code == 0 else "choose among safetensors") in out


def test_a_python_without_anything():
    """In one sentence what to do: where the package is not there, and where only those are not that it needs."""
    bare = [sys.executable, "-S", "-s", "experiments/export.py"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "failed: this Python has no weight_templates; install it as README.md says, or call one that has it.\n"
    )
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, env=env | {"PYTHONPATH": str(ROOT / "src")})
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"failed: \w+ is not installed for .*; run `.* -m pip install -e \.`, or call .*\.\n", done.stderr
    )


def test_no_home(monkeypatch):
    """Caches are done without where nothing else needs them."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(UserError, match="set HOME or XDG_CACHE_HOME"):
        files.cache_folder()
    entry.run(lambda: None)
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    entry.run(lambda: None)
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.parametrize("asked", ["cuda", "nonsense"])
def test_no_such_device(asked):
    code, out, err = ended(in_main("import jax.numpy\njax.numpy.zeros(3)", env={"JAX_PLATFORMS": asked}))
    assert (code, out) == (2, "")
    assert err == f"error: JAX finds no device for JAX_PLATFORMS={asked}; unset it, or set it to cpu.\n"


def test_a_terminal_that_is_gone():
    """`| head`, and a full disk behind `>`."""
    reader, writer = os.pipe()
    os.close(reader)
    for out, expected in (
        (writer, (141, "")),
        (os.open("/dev/full", os.O_WRONLY), (1, "failed: No space left on device.\n")),
    ):
        code = "from weight_templates import entry; entry._speak(); entry.run(lambda: print('a'))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True)
        os.close(out)
        assert (done.returncode, done.stderr) == expected


# Ctrl-C

BUSY = "print('.', flush=True)\nimport hashlib\nhashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
"""Ten minutes in C, where Python calls no handlers."""
DEAF = """\
print('.', flush=True)
while True:
    try:
        time.sleep(0.01)
    except BaseException:
        pass"""
"""What swallows KeyboardInterrupt, as a callback of JAX's garbage collection does."""


def interrupted(process, after=0.0, times=1):
    """Waits for a process's first line, and for some seconds; then Ctrl-C, so many times; what it comes to."""
    assert process.stdout.readline() == ".\n"
    time.sleep(after)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3 if times > 1 else 0)
    began = time.perf_counter()
    result = ended(process)
    assert time.perf_counter() - began < 60
    return result


@pytest.mark.parametrize("body", [BUSY, DEAF], ids=["in C", "deaf"])
def test_ctrl_c_whatever_the_process_does(body):
    code, out, err = interrupted(in_main(body), after=0.1)
    assert (code, out, err) == (130, "", entry.INTERRUPTED + "\n")


def test_what_was_printed_before_is_there():
    """Into a pipe, too, where Python would keep it."""
    process = run("from weight_templates import entry; import time; entry._speak(); "
                  "entry.run(lambda: (print('.'), time.sleep(0.3), print('a result'), time.sleep(60)))")  # fmt: skip
    assert interrupted(process, after=1.0) == (130, "a result\n", entry.INTERRUPTED + "\n")


def test_code_that_has_something_to_do_then():
    """The first Ctrl-C is an exception there, the second ends it, whatever it does."""
    body = "with entry.raising():\n    try:\n        print('.', flush=True); time.sleep(60)\n    finally:\n        print('kept', flush=True)"
    assert interrupted(in_main(body)) == (130, "kept\n", entry.INTERRUPTED + "\n")
    body += "; time.sleep(60)"
    assert interrupted(in_main(body), times=2) == (130, "kept\n", entry.INTERRUPTED + "\n")


def test_training_is_asked_to_stop_and_then_stopped():
    """Inside `training.Interrupt` the first Ctrl-C only asks; it is told of where that takes long, and the second ends it."""
    body = "from weight_templates.training import Interrupt\nwith Interrupt() as asked:\n    print('.', flush=True)\n"
    calm = (
        body
        + "    while not asked.asked: time.sleep(0.01)\n    print('saved', flush=True)\n    asked.pass_on(asked.asked)"
    )
    assert interrupted(in_main(calm)) == (130, "saved\n", "")
    busy = body + "    import hashlib\n    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    assert interrupted(in_main(busy), times=2) == (130, "", entry.INTERRUPTED + "\n")
    process = in_main(busy)
    assert process.stdout.readline() == ".\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("the step under way is finished first")
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", entry.INTERRUPTED + "\n")


def test_what_ignores_ctrl_c_goes_on_ignoring_it():
    """A shell's jobs in the background."""
    code = (
        "from weight_templates import entry; import time; entry.run(lambda: (print('.', flush=True), time.sleep(0.5)))"
    )
    process = run("import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
                  "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])", code)  # fmt: skip
    assert interrupted(process) == (0, "", "")


def test_a_fork_is_no_reason_to_leave():
    """Ctrl-C for a forked child alone ends that alone."""
    body = """\
child = os.fork()
if not child:
    time.sleep(60)
print('.', flush=True)
time.sleep(0.5)
os.kill(child, signal.SIGINT)
print(os.waitpid(child, 0)[1])
time.sleep(0.2)"""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    code = (
        "import os, signal, time\nfrom weight_templates import entry\nos.register_at_fork(after_in_child=entry._forget)\n"
        f"def main():\n{lines}entry.run(main)"
    )
    assert ended(run(code)) == (0, ".\n2\n", "")


def test_in_another_process_handlers_are_as_before():
    before = signal.getsignal(signal.SIGINT)
    seen = []
    entry.run(lambda: seen.append(signal.getsignal(signal.SIGINT)))
    assert seen == [entry.leave if before is signal.default_int_handler else before]
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1
    threads = threading.active_count()
    entry.run(lambda: None)
    time.sleep(0.1)
    assert threading.active_count() <= threads
    worker = threading.Thread(target=entry.run, args=(lambda: seen.append("ran"),))
    worker.start()
    worker.join()
    assert seen[-1] == "ran"


def test_interrupts_of_training_are_as_before_without_a_command(monkeypatch):
    """In a notebook the second Ctrl-C is Python's own."""
    with Interrupt() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.asked == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


PRETRAIN = "from weight_templates.entry import command; print('.', flush=True); command('experiments.pretrain')"


def killed(tmp_path, after, cold):
    """Pre-training, interrupted some seconds after its first line; with no compiled programs at hand if it is cold."""
    env = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")} if cold else {}
    process = run(PRETRAIN, f"--run.root={tmp_path}", "--optim.steps=100000", env=env)
    assert process.stdout.readline() == ".\n"
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    return ended(process, 600)


@pytest.mark.parametrize("after", [0.02, 0.15, 0.6, 2.0])
def test_ctrl_c_while_a_command_starts(tmp_path, after):
    code, out, err = killed(tmp_path, after, cold=False)
    assert code == 130, err
    assert "Traceback" not in out + err
    assert err.splitlines()[-1] == entry.INTERRUPTED or "saved at step" in err


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(60))
def test_ctrl_c_at_any_moment(tmp_path, seed):
    """While Python imports, tyro parses, JAX begins, a program compiles, and in training."""
    rng = random.Random(seed)
    code, out, err = killed(tmp_path, rng.uniform(0.01, 4 if seed % 2 else 25), cold=seed % 3 == 0)
    assert code == 130, err
    assert "Traceback" not in out + err
    assert err.splitlines()[-1] == entry.INTERRUPTED or "saved at step" in err
