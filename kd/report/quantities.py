"""Numbers as people read them; what is missing or not a number is a dash.

Every function takes what a summary may hold, None included.
"""

import math

MISSING = "–"


def percent(share: float | None, *, digits: int = 2) -> str:
    """0.8314 as "83.14 %"."""
    return MISSING if _missing(share) else f"{100 * share:.{digits}f} %"


def decimal(value: float | None, *, digits: int = 4) -> str:
    """0.03125 as "0.0312"; what would lose its digits, in powers of ten."""
    if _missing(value):
        return MISSING
    if value and not 0.5 * 10**-digits <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """4386000 as "4.39 M"; below a million every digit."""
    if _missing(value):
        return MISSING
    for unit, name in ((1e9, "B"), (1e6, "M")):
        if abs(value) >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """4980 as "1 h 23 min"."""
    if _missing(seconds):
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


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
