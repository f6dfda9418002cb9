"""kd.models.card: what the hub reads of it, and text that could break out."""

import json
from typing import Any

import pytest

from kd.models.bert import Bert
from kd.models.card import model_card
from kd.models.llama import Llama
from kd.models.mlp import MLP
from kd.models.t5 import T5
from kd.models.vit import ViT


def card(**changes):
    arguments: dict[str, Any] = {
        "name": "A student",
        "architecture": Bert.tiny(),
        "labels": ("negative", "positive"),
        "data": "SST-2.",
        "scores": {"accuracy": 0.912345, "ece": 0.03},
        "recipe": "make exp NAME=sst2_sinkd",
        "teacher": "bert-base",
        "license_note": "Apache-2.0",
    }
    return model_card(**(arguments | changes))


def front(text):
    """The front matter, each value as it is written."""
    _, matter, _ = text.split("---\n", 2)
    return dict(line.split(": ", 1) for line in matter.splitlines())


def test_front_matter_of_a_student():
    found = front(card())
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-classification"
    assert json.loads(found["tags"]) == ["knowledge-distillation", "jax", "kd-ot"]


def test_a_network_of_choices():
    text = card(head="MultipleChoice", labels=("choice",))
    assert front(text)["pipeline_tag"] == "multiple-choice"
    assert "`AutoModelForMultipleChoice.from_pretrained`" in text


def test_a_language_model_has_no_classes():
    text = card(architecture=Llama(), labels=())
    assert front(text)["pipeline_tag"] == "text-generation"
    assert "`AutoModelForCausalLM.from_pretrained`" in text
    assert "## Classes" not in text and "| rotary_base | 100000.0 |" in text


def test_a_text_that_is_answered_has_its_own_class():
    text = card(architecture=T5(), labels=())
    assert front(text)["pipeline_tag"] == "text2text-generation"
    assert "`AutoModelForSeq2SeqLM.from_pretrained`" in text


def test_a_vision_transformer_says_how_pixels_are_read():
    text = card(architecture=ViT(distillation_token=True))
    assert front(text)["pipeline_tag"] == "image-classification"
    assert "`DeiTForImageClassificationWithTeacher.from_pretrained`" in text
    assert "normalization.json" in text
    assert "`ViTForImageClassification.from_pretrained`" in card(architecture=ViT())


def test_front_matter_of_what_transformers_does_not_know():
    found = front(card(architecture=MLP(), teacher=""))
    assert found.keys() == {"tags"}
    assert "knowledge-distillation" not in found["tags"]


def test_body_says_everything():
    text = card()
    for part in (
        "# A student\n",
        "Distilled from bert-base.",
        "| 1 | positive |",
        "| accuracy | 0.9123 |",
        "```\nmake exp NAME=sst2_sinkd\n```",
        "| num_layers | 2 |",
        "Apache-2.0\n",
    ):
        assert part in text
    text = card(teacher="", license_note="")
    assert "Trained without a teacher." in text
    assert text.endswith("## License\n\nNot stated.\n")


@pytest.mark.parametrize("argument", ["name", "data", "teacher", "license_note"])
def test_a_line_stays_a_line(argument):
    assert "\na\n" not in card(**{argument: "---\na\n---\n# b"})


def test_text_does_not_break_out_of_tables_and_blocks():
    assert "| 0 | a\\|b c |" in card(labels=("a|b\nc",))
    assert "````\n```\nx\n```\n````" in card(recipe="```\nx\n```")
