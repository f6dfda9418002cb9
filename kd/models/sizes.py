"""Checks that the records of architectures share; each raises ValueError."""

import dataclasses
from collections.abc import Iterable
from typing import Any


def check_sizes(network: Any, *, but: str = "", more: Iterable[str] = ()) -> None:
    """Every field of the type int, but for one, and some more are at least 1."""
    sizes = [field.name for field in dataclasses.fields(network) if field.type is int]
    for name in [*sizes, *more]:
        if name != but and getattr(network, name) < 1:
            raise ValueError(f"{name} is {getattr(network, name)}, must be at least 1")


def check_whole(network: Any, *names: str) -> None:
    """These are whole numbers, whoever wrote them, and at least 1."""
    for name in names:
        value = getattr(network, name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value}, must be at least 1, a whole number")


def check_rates(network: Any, *names: str) -> None:
    """These can be rates of dropout."""
    for name in names:
        if not 0 <= getattr(network, name) < 1:
            raise ValueError(f"{name} is {getattr(network, name)}, must be in [0, 1)")


def check_positive(network: Any, *names: str) -> None:
    """These are positive."""
    for name in names:
        if not getattr(network, name) > 0:
            raise ValueError(f"{name} is {getattr(network, name)}, must be positive")


def check_start_token(network: Any) -> None:
    """What an encoder-decoder writes after is in its vocabulary."""
    if not 0 <= network.start_token < network.vocab_size:
        raise ValueError(
            f"start_token is {network.start_token}, must be in "
            f"[0, {network.vocab_size})"
        )
