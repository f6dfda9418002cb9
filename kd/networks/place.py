"""Where trained networks lie: directories, GGUF files, and names on the hub."""

import os
import pathlib
import re
from typing import Any

from kd.models import hub

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def place(text: str) -> str:
    """A directory or a GGUF file as a path, or a name on the hub.

    Raises:
        ValueError: the text is none of these.
    """
    if is_directory(text):
        return os.path.expanduser(text)
    if _HUB_NAME.fullmatch(text):
        return text
    raise ValueError(f"expected a directory or a name on the hub, got {text!r:.80}")


def is_directory(place: str) -> bool:
    """Whether the place is on this machine: a directory, or a GGUF file."""
    path = os.path.expanduser(place)
    return os.path.isdir(path) or (path.endswith(".gguf") and os.path.isfile(path))


def model_place(place: str | pathlib.Path) -> str:
    """Where the network is in a place: a run's is in its folder `model`."""
    inner = pathlib.Path(os.path.expanduser(place)) / "model"
    return str(inner) if (inner / "model.safetensors").exists() else str(place)


def with_fingerprints(tree: Any) -> Any:
    """A record as JSON with contents of networks and vocabularies instead of paths.

    The content of a `place` goes by another name: a path is no part of what makes a run
    the run it is (`kd.config.identity`), and what lies there is.
    """
    if isinstance(tree, dict):
        return {
            _CONTENT.get(name, name): hub.fingerprint(model_place(value))
            if name in _CONTENT and value
            else with_fingerprints(value)
            for name, value in tree.items()
        }
    return [with_fingerprints(x) for x in tree] if isinstance(tree, list) else tree


_CONTENT = {"place": "content", "vocabulary": "vocabulary"}
