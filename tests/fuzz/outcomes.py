"""What may come of any input: a result, or an error of one line."""

import collections
import os
from collections.abc import Callable
from typing import Any

import hypothesis

from kd.errors import UserError

counts: dict[str, collections.Counter[str]] = collections.defaultdict(
    collections.Counter
)

# New examples where many are asked for; the same few in every other run.
_RUNS = int(os.environ.get("FUZZ_RUNS", "0"))
FUZZ = hypothesis.settings(
    max_examples=_RUNS or 60,
    derandomize=not _RUNS,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def outcome(name: str, function: Callable[[], Any]) -> Any:
    """What the function gives, or None where it refuses in one line.

    Any other exception is a defect, and fails the test.
    """
    try:
        found = function()
    except UserError as error:
        line = str(error)
        counts[name]["errors of one line"] += 1
        assert line and "\n" not in line, repr(line)
        return None
    except Exception:
        counts[name]["tracebacks"] += 1
        raise
    counts[name]["results"] += 1
    return found
