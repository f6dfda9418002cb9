"""What is kept of teachers' answers about the training split, and how it is read.

record.py           `Keep`: which arrays, and what a loss sees of them; `Dense`
top_k.py            the largest logits of every prediction, and the sum of the others
hidden_and_head.py  what the logits are made of
folder.py           arrays on disk, written as a stream, with a manifest
measured.py         how what is kept differs from what the teacher says
ask.py              a teacher asked once, and what then stands in for it
"""

from kd.networks.kept.hidden_and_head import HiddenAndHead
from kd.networks.kept.record import Dense, Keep, Streamed
from kd.networks.kept.top_k import TopK

__all__ = ["Dense", "HiddenAndHead", "Keep", "Streamed", "TopK", "keep_in"]


def keep_in(text: str) -> Keep:
    """What a person means: "dense", "hidden", or a number k.

    Raises:
        ValueError: the text is neither.
    """
    if text == "dense":
        return Dense()
    if text == "hidden":
        return HiddenAndHead()
    if text.isdecimal():
        return TopK(k=int(text))
    raise ValueError(
        "expected dense, hidden (states, and the head), or how many of the largest "
        f"logits, such as 64; got {text!r:.80}"
    )
