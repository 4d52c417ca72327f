"""One launcher for any function of a configuration: here, as processes of this machine, or as SLURM jobs, by submitit."""

import contextlib
import dataclasses
import itertools
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from . import cli, entry
from .config import digest, to_json
from .entry import command as command
from .errors import RunError, UserError
from .files import expanded, write_json
from .help import LAST
from .jobs import Found, Job, State, compute_inline, read_json, states


TIMEOUTS = 100
"""How often a job may run out of its time and be queued again."""
LARGEST = 1000
"""Jobs in one array: SLURM's default limit is 1001."""


@dataclasses.dataclass(frozen=True)
class LaunchOptions:
    """Where and on what it runs. None of this changes a result."""

    launch: Literal["here", "local", "slurm"] = "here"
    """here: in this process. local: as processes of this machine. slurm: as SLURM jobs, several as an array. Jobs that
    are preempted or run out of time are queued again, and go on; finished ones are not run again."""
    dry_run: bool = False
    """Print the jobs and their cost, and stop."""
    follow: bool = True
    """Wait for SLURM's jobs, and tell what becomes of them; `experiments/status.py` tells at any time."""
    time: str = "1-00:00:00"
    """Limit of a job, as SLURM writes it: minutes, HH:MM:SS or D-HH:MM:SS."""
    partition: str | None = None
    """SLURM's partition."""
    nodes: int = 1
    """Nodes of a job."""
    gpus: int = 0
    """GPUs on each node, with a process for each; --launch local hides the GPUs that are not asked for."""
    processes: int | None = None
    """Processes on each node, which share each batch; default one a GPU, or one."""
    cpus: int | None = None
    """Cores for each process, under SLURM."""
    memory: int | None = None
    """GB on each node, under SLURM."""
    parallel: int | None = None
    """Jobs at a time; default 1 on this machine, 256 under SLURM."""
    sbatch: tuple[str, ...] = ()
    """More options of sbatch: KEY=VALUE, or KEY alone."""
    setup: tuple[str, ...] = ()
    """Lines of shell before each job, such as `module load cuda`."""

    def check(self) -> None:
        """Raises UserError where a number is out of range, or an option does nothing."""
        minutes_of(self.time)
        for name, least in (("nodes", 1), ("gpus", 0), ("processes", 1), ("cpus", 1), ("memory", 1), ("parallel", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise UserError(f"--{name} {value} is out of range; give {least} or more.")
        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        for name in given:
            flag = "--no-follow" if name == "follow" else f"--{name}"
            if self.launch == "local" and name in ("nodes", "partition", "cpus", "memory", "sbatch", "follow"):
                raise UserError(f"{flag} needs SLURM; say --launch slurm, or leave it out.")
            if self.launch == "here" and not self.dry_run:
                raise UserError(f"{flag} is for jobs, but this would run here; say --launch slurm or --launch local.")
        if self.gpus and self.processes not in (None, self.gpus) and self.nodes * self.processes > 1:
            raise UserError(
                f"--processes {self.processes} does not fit --gpus {self.gpus}: of several processes each has one GPU; leave "
                "--processes out."
            )
        if self.launch == "local" and self.gpus and (self.parallel or 1) > 1:
            raise UserError("jobs that run at a time on this machine would share its first GPUs; leave --parallel out.")


HERE = LaunchOptions()


def execute(module: Any) -> None:
    """The command line of an experiment or ablation: reads it, and launches what it asks for.

    **Arguments:**

    - `module`: it has `main(config)`, and `PRESETS`, or `METHODS`, names that the first word chooses among,
        and `method(name)`, the configuration of one, or only `Config`, and then runs here whatever happens. An ablation has instead of `main` its grid, `jobs(config)`,
        and `collect(config, jobs)`, which makes records and pages of those that are done. Either may have
        `cost(config)`, the FLOPs of a job, and `check(config)`, which raises UserError for what can be refused before a
        job is submitted.

    Raises UserError and RunError; `weight_templates.entry.run` tells them.
    """
    if not (hasattr(module, "PRESETS") or hasattr(module, "METHODS")):
        module.main(cli.parse({"default": module.Config()}))
        return
    asked = parse(module, sys.argv[1:])
    config, options = asked.config, asked.launch
    options.check()
    if hasattr(module, "jobs"):
        sweep(module, config, options, sys.argv[1:])
        return
    job = Job(f"{module.__name__}:main", config, module.__name__.rpartition(".")[2])
    if options.dry_run or options.launch != "here":
        _check([job], options)
    if options.dry_run:
        print(describe([job], options))
    elif options.launch == "here":
        compute_inline()
        module.main(config)
    else:
        submit([job], options)


def parse(module: Any, argv: list[str]) -> Any:
    """A module's command line, read into a `config` and the options of its `launch`; raises UserError."""
    if hasattr(module, "METHODS"):
        about, name = module.__doc__ or "", module.__name__
        return cli.parse_command(module.METHODS, lambda m: _with_options(module.method(m), name), about, argv)[1]
    commands = {name: _with_options(config, module.__name__) for name, config in module.PRESETS.items()}
    return cli.parse(commands, argv)


def sweep(module: Any, config: Any, options: LaunchOptions = HERE, argv: Sequence[str] = ()) -> None:
    """Runs all jobs of a module's grid that have not been run, and has it collect what came out, of all that are done.

    The command line `argv` is noted in `root/sweeps`, so that `figures/make.py` can collect it again later. Raises
    RunError if jobs failed, UserError for a mistake.
    """
    jobs = module.jobs(config)
    if not jobs:
        raise UserError("these options leave no job to run; see --help.")
    _check(jobs, options)
    if options.dry_run:
        print(describe(jobs, options))
        return
    name, root = f"{module.__name__}-{digest(to_json(config))}.json", expanded(config.root)
    try:
        write_json(root / "sweeps" / name, {"module": module.__name__, "argv": list(argv)})
    except OSError as error:
        raise UserError(f"cannot write to {root} ({error.strerror}); choose another --root.") from None
    try:
        if options.launch == "here":
            run_here(jobs)
        else:
            submit(jobs, options)
    finally:
        if done := [job for job in jobs if job.result is not None]:
            module.collect(config, done)


def _check(jobs: Sequence[Job], options: LaunchOptions) -> None:
    wanted = [job for job in jobs if job.result is None]
    for job in wanted:
        if check := job.resolved("check"):
            check(job.config)
    if wanted and options.launch == "slurm" and not options.dry_run and shutil.which("sbatch") is None:
        raise UserError("there is no sbatch on this machine; log in to the cluster, or say --launch local.")


def run_here(jobs: Sequence[Job]) -> None:
    """Runs what is not done, one after the other; raises RunError in the end if jobs failed."""
    failed = 0
    for number, job in enumerate(jobs, 1):
        if job.result is None:
            cli.say(f"job {number} of {len(jobs)}: {job.name}")
            try:
                job()
            except (UserError, RunError) as error:
                cli.say(f"failed   {job.name}: {error}")
                failed += 1
            except Exception as error:  # a fault of the program's is no reason to leave the others undone
                cli.say(f"failed   {job.name}: {entry.told(error)[0].removeprefix('failed: ')}")
                failed += 1
    if failed:
        raise RunError(f"{failed} of {len(jobs)} jobs failed; the same command runs them again.")


def _with_options(config: Any, module: str) -> Any:
    """A configuration beside the options of launching, as one command line, of a module whose docstring has examples."""
    flat = tyro.conf.arg(name="")
    fields: list[Any] = [
        ("config", Annotated[type(config), flat]),
        ("launch", Annotated[LaunchOptions, flat, LAST], dataclasses.field(default=HERE)),
    ]
    kind = dataclasses.make_dataclass("Command", fields, frozen=True)
    kind.__doc__, kind.__module__ = type(config).__doc__, module
    return kind(config)


def _standing(jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
    """Jobs, each with why it is not to be submitted, or nothing."""
    for job, now in zip(jobs, states([job.path for job in jobs]), strict=True):
        queued = f"{now.state} already, as job {now.id}" if now.state in ("running", "waiting") else ""
        yield job, "finished already" if job.result is not None else queued


def describe(jobs: Sequence[Job], options: LaunchOptions) -> str:
    """The jobs, and what they cost, as a table."""
    lines, total, wanted = [], 0.0, []
    for job, standing in _standing(jobs):
        if standing:
            lines.append(f"{job.path.name:<50}  {standing}")
            continue
        wanted.append(job)
        cost = job.resolved("cost")
        flops = cost(job.config) if cost else float("nan")
        total += flops
        lines.append(job.path.name if math.isnan(flops) else f"{job.path.name:<50}  {flops:.2g} FLOPs")
    each = options.nodes * max(options.gpus, 1)
    hours = len(wanted) * each * minutes_of(options.time) / 60
    lines.append(
        f"{len(wanted)} of {len(jobs)} jobs to run"
        + ("" if math.isnan(total) else f", {total:.2g} FLOPs in all")
        + f"; at most {hours:,.1f} hours of {'GPUs' if options.gpus else 'nodes'}, unless jobs run out of time"
    )
    return "\n".join(lines)


def submit(jobs: Sequence[Job], options: LaunchOptions) -> None:
    """Submits what is neither done nor queued, and follows it to its end unless told not to.

    Raises UserError where nothing can be submitted, RunError if jobs failed.
    """
    wanted, left = [], [job for job in jobs if job.result is None]
    for job, standing in _standing(jobs):
        if standing:
            cli.say(f"{job.name}: {standing}")
        else:
            wanted.append(job)
    if options.launch == "slurm":
        for start in range(0, len(wanted), LARGEST):
            _submit(wanted[start : start + LARGEST], options)
        if not options.follow:
            cli.say(f"see them by             {_status(jobs)}")
            return
        wanted = []
    try:
        with entry.raising():
            follow(left, wanted, options)
    except KeyboardInterrupt:
        if options.launch != "slurm":
            raise
        cli.say(f"\nthe jobs go on; see them by   {_status(jobs)}")
        raise SystemExit(130) from None


def _status(jobs: Sequence[Job]) -> str:
    root = jobs[0].path.parent.parent
    return "python experiments/status.py" + ("" if str(root) == "runs" else f" --root {root}")


def follow(jobs: Sequence[Job], wanted: list[Job], options: LaunchOptions) -> None:
    """Tells what becomes of jobs until all have ended, submitting those that are `wanted`, or stop, as others end.

    Raises RunError if one failed.
    """
    pause, told, missing = 0.5, dict[str, State](), dict[str, int]()
    while True:
        found = dict(zip([job.path for job in jobs], _patiently([job.path for job in jobs]), strict=True))
        for job in wanted:
            found[job.path] = Found("new", "", "", "")  # whatever an earlier submission came to
        wanted += [job for job in jobs if found[job.path].state == "stopped"]
        for path, now in found.items():
            # A result may be late to appear on this machine: a job counts as failed when it was so twice.
            missing[path.name] = missing.get(path.name, 0) + 1 if now.state == "failed" else 0
            state = "running" if missing[path.name] == 1 else now.state
            found[path] = now._replace(state=state)
            if state not in ("new", told.get(path.name)) and missing[path.name] != 1:
                cli.say(f"{state:<8} {path.name} (job {now.id})" + (f": {now.why}" if now.why else ""))
                told[path.name] = state
                pause = 0.5
        ended = [now for now in found.values() if now.state in ("done", "failed")]
        busy = len(found) - len(ended) - len(wanted)
        while wanted and busy < (options.parallel or 1):
            _submit([wanted.pop(0)], options)
            busy += 1
        if len(ended) == len(found):
            break
        time.sleep(pause)
        pause = min(1.2 * pause, 10)
    if failed := sum(now.state == "failed" for now in ended):
        raise RunError(f"{failed} of {len(found)} jobs failed; the same command submits them again.")


def _patiently(folders: Sequence[Path]) -> list[Found]:
    """`states`, asked again for some minutes where SLURM does not answer."""
    for pause in (5, 20, 60, 120):
        try:
            return states(folders)
        except RunError:
            time.sleep(pause)
    return states(folders)


def _submit(jobs: Sequence[Job], options: LaunchOptions) -> None:
    import submitit
    from submitit.core.utils import FailedJobError

    slurm = options.launch == "slurm"
    minutes = minutes_of(options.time)
    processes = options.processes or max(options.gpus, 1)
    words: dict[str, Any] = {"timeout_min": minutes, "tasks_per_node": processes, "gpus_per_node": options.gpus}
    setup = list(options.setup)
    if slurm:
        if options.cpus:
            setup.append("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK")  # which srun forgets since SLURM 22.05
        words |= {
            "nodes": options.nodes,
            "cpus_per_task": options.cpus,
            "mem_gb": options.memory,
            "slurm_partition": options.partition,
            "slurm_array_parallelism": options.parallel or 256,
            "slurm_signal_delay_s": min(120, 20 * minutes),
            "slurm_wckey": "",  # submitit's own is refused where SLURM accounts for such keys
            "slurm_additional_parameters": {"requeue": True} | dict(_pair(word) for word in options.sbatch),
            "slurm_setup": setup,
        }
        if not options.gpus:
            del words["gpus_per_node"]
    elif setup:
        words["local_setup"] = setup
    name = jobs[0].name if len(jobs) == 1 else f"{jobs[0].name}-and-{len(jobs) - 1}-more"
    folder = jobs[0].path.parent / "logs" / "%j"
    for job, file in itertools.product(jobs, ("result.json", "error.json", "again.json")):
        (job.path / file).unlink(missing_ok=True)
    # What watches over a process of this machine tells of a Ctrl-C by a stack trace: not in the terminal.
    with (
        _own_environment(),
        contextlib.nullcontext() if slurm else cli.errors_to(folder.with_name("controllers_log.err")),
    ):
        try:
            executor = submitit.AutoExecutor(
                folder, cluster=options.launch, slurm_max_num_timeout=TIMEOUTS, local_max_num_timeout=TIMEOUTS
            )
            executor.update_parameters(name=name, **{k: v for k, v in words.items() if v is not None})
            with executor.batch():
                submitted = [executor.submit(job) for job in jobs]
        except (FailedJobError, OSError) as error:
            reason = [line for line in str(error).splitlines() if line.strip()][-1]
            raise UserError(f"the jobs were not accepted: {reason}") from None
    for job, one in zip(jobs, submitted, strict=True):
        said = read_json(job.path / "job.json") or {"function": job.function, "name": job.name, "submissions": []}
        said["config"] = dataclasses.asdict(job.config)
        said["submissions"].append(
            {"cluster": options.launch, "id": one.job_id, "log": str(one.paths.stderr), "time": round(time.time())}
        )
        write_json(job.path / "job.json", said)
        cli.say(f"submitted {job.path.name} as job {one.job_id}")


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Hides the variables of the job that this process is in, if any: a job that it submits would take them for its own."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    from submitit.helpers import clean_env

    configuration = os.environ.get("SLURM_CONF")
    with clean_env():
        if configuration:
            os.environ["SLURM_CONF"] = configuration
        yield


def _pair(word: str) -> tuple[str, Any]:
    key, equals, value = word.lstrip("-").partition("=")
    return key, value if equals else True


def minutes_of(text: str) -> int:
    """A time as SLURM writes it, in whole minutes, rounded up: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS.

    Raises UserError for anything else, and for less than a minute.
    """
    days, dash, rest = text.rpartition("-")
    try:
        parts = [int(part) for part in rest.split(":")]
        if dash:
            hours, minutes, seconds = [*parts, 0, 0][:3]
        else:
            hours, minutes, seconds = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
        total = int(days if dash else 0) * 1440 + hours * 60 + minutes + -(-seconds // 60)
        if len(parts) > 3 or min(parts) < 0 or total < 1:
            raise ValueError
    except (ValueError, KeyError):
        raise UserError(f"--time {text} is no time; give minutes, HH:MM:SS or D-HH:MM:SS.") from None
    return total
