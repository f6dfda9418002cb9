"""The exceptions that are meant for the person at the terminal.

The command line prints a `UserError` as one line and exits with status 2; every
other exception is a defect of this project and keeps its traceback.
"""


class UserError(Exception):
    """Bad input: says what was wrong, where, and what would be right."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the machine, or a device, has not enough memory."""
    # XLA's errors are told apart by their words alone.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and "RESOURCE_EXHAUSTED" in str(error).partition("\n")[0]
    )


class Diverged(UserError):
    """A loss, gradient or parameter of a run is not finite, and would be so again."""
