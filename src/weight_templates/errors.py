"""The two ways a run can be somebody's fault. `cli.run` turns both into one sentence and an exit code."""


class UserError(Exception):
    """A mistake in what was asked for. The message is one sentence: the fault, then the remedy. Exit code 2."""


class RunError(Exception):
    """A run that was asked for correctly and failed, such as a loss that is not finite. Exit code 1."""
