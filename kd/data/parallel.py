"""Translation: two files whose lines match."""

import dataclasses
from pathlib import Path

from kd.data import files
from kd.data.pairs import Pairs
from kd.data.writing import WritingTask
from kd.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelTask(WritingTask):
    """A text in another language, line by line.

    Attributes:
        files: names of those of train, dev and test in the folder `name`, without their
            ending.
        languages: the endings of sources and of texts to be written.
    """

    files: tuple[str, str, str]
    languages: tuple[str, str]

    @property
    def local_file(self) -> str:
        return f"{self.name}/{self.files[0]}.{self.languages[0]}"

    def read_local(self, directory: Path) -> tuple[Pairs, ...]:
        return tuple(self._read(directory, file) for file in self.files)

    def _read(self, directory: Path, file: str) -> Pairs:
        sides, paths = [], []
        for language in self.languages:
            path, content = files.read(directory, self.name, f"{file}.{language}")
            lines = files.lines_of(path, content)
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    raise UserError(f"{path}:{number}: empty; expected a text a line")
            sides.append(lines)
            paths.append(path)
        sources, targets = sides
        if len(sources) != len(targets):
            raise UserError(
                f"{paths[1]} has {len(targets):,} lines, {paths[0]} {len(sources):,}; "
                "expected as many"
            )
        if not sources:
            raise UserError(f"{paths[0]}: no lines; expected a text a line")
        return Pairs.of([(s, [t]) for s, t in zip(sources, targets, strict=True)])


MULTI30K = ParallelTask(
    name="multi30k",
    files=("train", "val", "test_2016_flickr"),
    languages=("en", "de"),
    target_format=" {}",
)
"""Descriptions of pictures, English to German: 29,000 pairs, 1,014 of dev, 1,000 test.

Source: elliott2016multi30k; scored by BLEU, here of plain text, cased, by sacrebleu.
"""
