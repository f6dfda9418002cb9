"""Which views examples can have."""

from typing import Any

from kd.data.choices import ChoiceTask
from kd.data.images import ImageTask
from kd.data.sentences import TextTask
from kd.data.task import Task
from kd.views.view import View


def only_images(view: View, task: Task[Any]) -> str:
    """Why the view cannot be of these examples if they are no images; "" if they are.

    Batches hold "inputs" [b, h, w, c].
    """
    return "" if isinstance(task, ImageTask) else _refused(view, task, "images")


def only_numbers(view: View, task: Task[Any]) -> str:
    """The same for arrays of numbers: images, or rows of a table.

    Batches hold "inputs" [b, ...].
    """
    if not isinstance(task, TextTask):
        return ""
    return _refused(view, task, "numbers, which ids of tokens only look like")


def only_sentences(view: View, task: Task[Any]) -> str:
    """The same for sentences, one an example.

    Batches hold "tokens" and "token_mask" [b, n].
    """
    if not isinstance(task, TextTask):
        return _refused(view, task, "text")
    if isinstance(task, ChoiceTask) or len(task.columns) > 1:
        return (
            f"{type(view).__name__} mixes single sentences, and examples of "
            f"{task.name} have several; there is no view of these"
        )
    return ""


def _refused(view: View, task: Task[Any], wanted: str) -> str:
    if isinstance(task, TextTask):
        kind, possible = "text", "TokenMix"
    elif isinstance(task, ImageTask):
        kind, possible = "images", "Mixup, CutMix, Cutout, Flip or Crop"
    else:
        kind, possible = "rows of numbers", "Mixup"
    return (
        f"{type(view).__name__} is a view of {wanted}, and examples of {task.name} "
        f"are {kind}; their view can be {possible}"
    )
