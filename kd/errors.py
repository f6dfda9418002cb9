"""The one exception that is meant for the person at the terminal.

The command line prints a `UserError` as one line and exits with status 2; every
other exception is a defect of this project and keeps its traceback.
"""


class UserError(Exception):
    """Bad input: says what was wrong, where, and what would be right."""
