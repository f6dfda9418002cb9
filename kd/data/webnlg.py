"""Data to text: triples of a knowledge graph, put into words.

The files are those of the WebNLG challenge of 2017: a folder of each split with XML
files in it, or a tar archive of all.
"""

import dataclasses
import io
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from pathlib import Path

from kd.data import files
from kd.data.pairs import Pairs
from kd.data.writing import WritingTask
from kd.errors import UserError
from kd.evaluate.written import BLEU, CHRF, ROUGE_L, TER, WrittenText

Entry = tuple[str, list[str]]
"""Triples as a text, and texts that say the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TriplesTask(WritingTask):
    """Texts that say what triples say.

    Of train every text is an example, of dev and test every set of triples, judged by
    all of its texts.

    Attributes:
        archive: name of the folder in the folder `name` that has the splits, also of
            the .tar, .tar.gz or .tar.xz of it.
        splits: folders, or files, of train, dev and test in there.
    """

    archive: str
    splits: tuple[str, str, str]

    @property
    def local_file(self) -> str:
        return f"{self.name}/{self.archive}.tar"

    def read_local(self, directory: Path) -> tuple[Pairs, ...]:
        contents = dict(self._files(directory))
        return pairs(self._entries(directory, contents, s) for s in self.splits)

    def _files(self, directory: Path) -> Iterator[tuple[str, bytes]]:
        """Every XML file, by its path in the archive, in order."""
        folder = directory / self.name / self.archive
        if folder.is_dir():
            for path in sorted(folder.rglob("*.xml")):
                yield path.relative_to(folder).as_posix(), path.read_bytes()
            return
        path, content = files.read(directory, self.name, f"{self.archive}.tar")
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                members = [m for m in archive if m.isfile() and m.name.endswith(".xml")]
                for member in sorted(members, key=lambda member: member.name):
                    stream = archive.extractfile(member)
                    assert stream is not None
                    _, _, inner = member.name.partition(f"{self.archive}/")
                    yield inner or member.name, stream.read()
        except (tarfile.TarError, EOFError) as error:
            raise UserError(f"{path}: damaged archive ({error})") from error

    def _entries(
        self, directory: Path, contents: dict[str, bytes], split: str
    ) -> list[Entry]:
        here = f"{directory / self.name / self.archive}"
        own = [n for n in contents if n == split or n.startswith(f"{split}/")]
        entries = [
            entry
            for name in own
            for entry in parse_xml(f"{here}/{name}", contents[name])
        ]
        if not entries:
            raise UserError(f"{here}: no entries in {split}; expected XML files there")
        return entries


def pairs(splits: Iterable[list[Entry]]) -> tuple[Pairs, ...]:
    """What is learnt and judged of train and the other splits, in this order.

    Of train every text is an example, of the others every set of triples.
    """
    train, *judged = splits
    learnt = [(source, [text]) for source, texts in train for text in texts]
    return Pairs.of(learnt), *map(Pairs.of, judged)


def parse_xml(
    where: str, content: bytes, *, drop_empty: bool = False
) -> Iterator[Entry]:
    """The entries of a file of the challenge.

    Raises:
        UserError: it is no XML, or an entry has no triples, no texts or an empty one.
    """
    # What an entity could do harm with stands in a declaration of types.
    if b"<!DOCTYPE" in content:
        raise UserError(f"{where}: a document type is declared; expected none")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise UserError(f"{where}: not XML ({error})") from error
    for number, entry in enumerate(root.iter("entry"), start=1):
        triples = [triple.text or "" for triple in entry.iter("mtriple")]
        texts = [text.text or "" for text in entry.iter("lex")]
        if drop_empty:
            texts = written(texts)
        yield checked(f"{where}: entry {number}", triples, texts)


def written(texts: list[str]) -> list[str]:
    """Those that are not empty, or all if none is."""
    return [text for text in texts if text.strip()] or texts


def checked(where: str, triples: list[str], texts: list[str]) -> Entry:
    """Triples as one text, with the texts about them.

    Raises:
        UserError: there are none of these, or a text is empty.
    """
    if not triples or not texts:
        what = "triples" if not triples else "texts"
        raise UserError(f"{where} has no {what}; expected some")
    if not all(text.strip() for text in texts):
        raise UserError(f"{where} has an empty text")
    return " && ".join(triple.replace("_", " ") for triple in triples), texts


WEBNLG = TriplesTask(
    name="webnlg",
    archive="webnlg_challenge_2017",
    splits=("train", "dev", "test/testdata_with_lex.xml"),
    source_format="{} =",
    target_format=" {}",
    target=WrittenText(official=(BLEU, CHRF, ROUGE_L, TER), num_references=0),
)
"""One to seven triples as a text: 18,102 texts of 6,940, 872 of dev, 1,862 of test.

Half of test is of kinds of things that train does not have. Source:
gardent2017webnlg; scored by BLEU with all references, here cased and of plain text.
"""
