"""One view after the other."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
from jaxtyping import PRNGKeyArray

from kd.types import Batch
from kd.views.view import Ask, View

if TYPE_CHECKING:
    from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Composed(View):
    """Views in their order, each of what the one before gave.

    Args:
        views: at most one of them mixes examples; only the last may stand beside the
            batch, which is then what those before it gave.
    """

    views: tuple[View, ...]

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError("Composed needs at least one view")
        mixing = [type(view).__name__ for view in self.views if view.mixes]
        if len(mixing) > 1:
            raise ValueError(
                f"{' and '.join(mixing)} each give examples a second label, and there "
                "is no third; take one of them"
            )
        for view in self.views[:-1]:
            if view.beside is not None:
                raise ValueError(
                    f"{type(view).__name__} stands beside the batch, as only the last "
                    "view can"
                )

    @property
    def changes_answers(self) -> bool:
        return all(view.changes_answers for view in self.views)

    @property
    def mixes(self) -> bool:
        return any(view.mixes for view in self.views)

    @property
    def beside(self) -> float | None:
        return self.views[-1].beside

    @property
    def inner(self) -> tuple[View, ...]:
        return self.views

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        yield from super().problems(experiment)
        if not self.changes_answers:
            live = [type(v).__name__ for v in self.views if not v.changes_answers]
            for view in self.views:
                if view.changes_answers:
                    yield (
                        f"{type(view).__name__} interpolates cached answers, and none "
                        f"are to what {', '.join(live)} gives; answers='live' asks the "
                        "teacher about it"
                    )

    def __call__(
        self, key: PRNGKeyArray, batch: Batch, ask: Ask | None = None
    ) -> dict[str, Any]:
        viewed = dict(batch)
        keys = jax.random.split(key, len(self.views))
        for own, view in zip(keys, self.views, strict=True):
            viewed = view(own, viewed, ask)
        return viewed
