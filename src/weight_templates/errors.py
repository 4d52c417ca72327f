"""The two ways a run can be somebody's fault. `cli.run` turns both into one sentence and an exit code."""


class UserError(Exception):
    """A mistake in what was asked for. The message is one sentence: the fault, then the remedy. Exit code 2."""


class NoDecoderError(UserError):
    """There is no decoder where one was asked for."""


class RunError(Exception):
    """A run that was asked for correctly and failed, such as a loss that is not finite. Exit code 1."""
