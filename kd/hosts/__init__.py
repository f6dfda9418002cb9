"""One program in several processes, on one machine or on many.

Every process runs the same commands in the same order. What only one may do, the first
one does, and what all must agree on is compared through the store of JAX's distributed
runtime. Alone, a process is the first one, agrees with itself and waits for nobody.

joining.py   how processes find each other, and how they end together
exchange.py  what one does for all, and what all tell each other
checks.py    what must be the same everywhere, compared before anything is computed
launch.py    `make hosts`: several processes on this machine
"""

from kd.hosts.exchange import agree, of_all, of_first, then_others
from kd.hosts.joining import (
    Group,
    described,
    fail,
    fail_of,
    find,
    group,
    is_first,
    join,
    leave,
    several,
    tell,
)

__all__ = [
    "Group", "agree", "described", "fail", "fail_of", "find", "group", "is_first",
    "join", "leave", "of_all", "of_first", "several", "tell", "then_others",
]  # fmt: skip
