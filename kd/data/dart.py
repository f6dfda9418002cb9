"""Data to text: triples of tables, restaurants and a knowledge graph, put into words.

The files are those of DART 1.1.1: a file of each split, in JSON, or in the XML of
WebNLG.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kd.data import files
from kd.data.pairs import Pairs
from kd.data.webnlg import Entry, checked, pairs, parse_xml, written
from kd.data.writing import WritingTask
from kd.errors import UserError
from kd.evaluate.written import BLEU, CHRF, ROUGE_L, TER, WrittenText


@dataclasses.dataclass(frozen=True, kw_only=True)
class DartTask(WritingTask):
    """Texts that say what triples say, as `kd.data.webnlg` has them.

    Of train every text is an example, of dev and test every set of triples, judged by
    all of its texts. An empty text beside others is left out: the test split has one.

    Attributes:
        files: names of those of train, dev and test in the folder `name`, without their
            ending, .json or .xml.
    """

    files: tuple[str, str, str]

    @property
    def local_file(self) -> str:
        return f"{self.name}/{self.files[0]}.json"

    def read_local(self, directory: Path) -> tuple[Pairs, ...]:
        return pairs(list(self._entries(directory, name)) for name in self.files)

    def _entries(self, directory: Path, name: str) -> Iterator[Entry]:
        if any((directory / self.name).glob(f"{name}.xml*")):
            path, content = files.read(directory, self.name, f"{name}.xml")
            return parse_xml(str(path), content, drop_empty=True)
        return _parse(*files.read(directory, self.name, f"{name}.json"))


def _parse(path: Path, content: bytes) -> Iterator[Entry]:
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: expected a list of entries")
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: entry {number}"
        triples, texts = _fields(where, entry)
        yield checked(where, triples, written(texts))


def _fields(where: str, entry: Any) -> tuple[list[str], list[str]]:
    """Triples and texts of an entry."""
    try:
        triples, texts = entry["tripleset"], [a["text"] for a in entry["annotations"]]
        parts = [part for triple in triples for part in triple]
    except (TypeError, KeyError):
        parts, triples, texts = [None], [], []
    if not all(isinstance(text, str) for text in (*parts, *texts)):
        raise UserError(
            f'{where} is not {{"tripleset": [[subject, predicate, object], ...], '
            '"annotations": [{"text": ...}, ...]}'
        )
    return [" | ".join(triple) for triple in triples], texts


DART = DartTask(
    name="dart",
    files=("dart-v1.1.1-full-train", "dart-v1.1.1-full-dev", "dart-v1.1.1-full-test"),
    source_format="{} =",
    target_format=" {}",
    target=WrittenText(official=(BLEU, CHRF, ROUGE_L, TER), num_references=0),
)
"""Triples as a text: 62,659 texts of 30,526 sets of train, 2,768 of dev, 5,097 of test.

Its dev and test have texts of those of WebNLG, so that who learnt from all of WebNLG's
has seen them. Source: nan2021dart; scored by BLEU with all references, here cased and
of plain text.
"""
