"""What a reader on the hub should know of a network: its model card."""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd.models.bert import Bert
from kd.models.bert_checkpoint import Head
from kd.models.saved import ENCODER_DECODERS, LANGUAGE_MODELS, model_type
from kd.models.vit import ViT
from kd.models.vit_checkpoint import CLASSES
from kd.types import Architecture

_PIPELINES: dict[Head, str] = {
    "SequenceClassification": "text-classification",
    "MultipleChoice": "multiple-choice",
}


def model_card(
    *,
    name: str,
    architecture: Architecture,
    labels: Sequence[str],
    head: Head = "SequenceClassification",
    data: str,
    scores: Mapping[str, float],
    recipe: str,
    teacher: str,
    license_note: str,
) -> str:
    """The README.md of a network: Markdown, with YAML for the hub before it.

    Args:
        name: of the network, its title.
        architecture: its sizes.
        labels: name of each class, in the order of the logits; none of a language
            model.
        head: what transformers calls the outputs of a BERT.
        data: what it was trained and scored on, in a sentence.
        scores: by name, such as `{"accuracy": 0.91}`.
        recipe: how it was trained, shown as it is: a command, or a configuration.
        teacher: whom it was distilled from; empty for a network trained on labels.
        license_note: under which terms weights and data may be used, in a sentence;
            empty if nothing is known.
    """
    bert = isinstance(architecture, Bert)
    writes = type(architecture) in LANGUAGE_MODELS
    tags = ["knowledge-distillation"] * bool(teacher) + ["jax", "kd-ot"]
    front = [f"tags: {json.dumps(tags)}"]
    kind: str = head
    if bert:
        front.append("library_name: transformers")
        front.append(f"pipeline_tag: {_PIPELINES[head]}")
    if writes:
        rewrites = type(architecture) in ENCODER_DECODERS
        task = "text2text-generation" if rewrites else "text-generation"
        front += ["library_name: transformers", f"pipeline_tag: {task}"]
        kind = "Seq2SeqLM" if rewrites else "CausalLM"
    if isinstance(architecture, ViT):
        front += ["library_name: transformers", "pipeline_tag: image-classification"]
    origin = (
        f"Distilled from {_line(teacher)}." if teacher else "Trained without a teacher."
    )
    use = "Read it with `kd.models.saved`; transformers does not know it."
    if bert or writes:
        use = (
            f"Read it with `AutoModelFor{kind}.from_pretrained` "
            "and `AutoTokenizer.from_pretrained` of transformers, or with "
            "`kd.models.saved`."
        )
    elif isinstance(architecture, ViT):
        # An AutoModel would take the class without the distillation token's head.
        use = (
            f"Read it with `{CLASSES[model_type(architecture)]}.from_pretrained` of "
            "transformers, or with `kd.models.saved`. Pixels, from 0 to 255, are less "
            "`mean` and over `std` of normalization.json, channel by channel."
        )
    sizes: dict[str, Any] = dataclasses.asdict(architecture)  # pyrefly: ignore
    parts = [
        "\n".join(["---", *front, "---"]),
        f"# {_line(name)}",
        f"{origin} {use}",
        *(["## Classes", _table(("id", "class"), enumerate(labels))] if labels else []),
        "## Data",
        _line(data),
        "## Scores",
        _table(("score", "value"), ((k, f"{v:.4g}") for k, v in scores.items())),
        "## Recipe",
        _fenced(recipe),
        "## Architecture",
        _table((type(architecture).__name__, "value"), sizes.items()),
        "## License",
        _line(license_note) or "Not stated.",
    ]
    return "\n\n".join(parts) + "\n"


def _line(text: str) -> str:
    """One paragraph, whatever white space was in it."""
    return " ".join(text.split())


def _table(head: tuple[str, str], rows: Iterable[tuple[object, object]]) -> str:
    lines = [head, ("---", "---"), *rows]
    return "\n".join(
        "| " + " | ".join(_line(str(x)).replace("|", "\\|") for x in line) + " |"
        for line in lines
    )


def _fenced(text: str) -> str:
    """A block shown as it is, also if it has such blocks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.strip()}\n{fence}"
