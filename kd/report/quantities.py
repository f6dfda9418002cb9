"""Numbers as people read them; what is missing or not a number is a dash.

Every function takes what a summary may hold, None included.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

MISSING = "–"


def percent(share: float | None, *, digits: int = 2) -> str:
    """0.8314 as "83.14 %"."""
    return f"{100 * share:.{digits}f} %" if _known(share) else MISSING


def decimal(value: float | None, *, digits: int = 4) -> str:
    """0.03125 as "0.0312"; what would lose its digits, in powers of ten."""
    if value == math.inf:
        return "∞"
    if not _known(value):
        return MISSING
    if value and not 0.5 * 10**-digits <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.{digits}f}"


def score(value: float | None, metric: Mapping[str, Any]) -> str:
    """A metric's value as that metric is shown."""
    return percent(value) if metric.get("percent") else decimal(value)


def count(value: float | None) -> str:
    """4386000 as "4.39 M"; below a million every digit."""
    if not _known(value):
        return MISSING
    for unit, name in ((1e9, "B"), (1e6, "M")):
        if abs(value) >= unit:
            return f"{value / unit:.2f} {name}"
    return f"{value:,.0f}"


def size(num_bytes: float | None) -> str:
    """3221225472 as "3.00 GiB", to three digits."""
    if not _known(num_bytes):
        return MISSING
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if num_bytes >= unit:
            value = num_bytes / unit
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:,.{digits}f} {name}"
    return f"{num_bytes:,.0f} B"


def duration(seconds: float | None) -> str:
    """4980 as "1 h 23 min"."""
    if not _known(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def described(value: object) -> str:
    """Anything out of a JSON file in one line of words."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, dict):
        return ", ".join(f"{key}: {described(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(described, value))
    return str(value)


def rounded(value: float | None) -> float | None:
    """A measurement to the three digits that mean something: 514.2 as 514.0."""
    return float(f"{value:.3g}") if _known(value) else value


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
