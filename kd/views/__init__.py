"""Views of a batch: what the networks see of it, on the device.

view=Composed((Flip(), Crop(4), Beside(Pick(CutMix()))))
"""

from kd.views.beside import Beside
from kd.views.composed import Composed
from kd.views.images import Crop, Cutout, Flip
from kd.views.mixing import CutMix, Mixup
from kd.views.pick import Pick
from kd.views.tokens import TokenMix
from kd.views.view import View

__all__ = [
    "Beside",
    "Composed",
    "Crop",
    "CutMix",
    "Cutout",
    "Flip",
    "Mixup",
    "Pick",
    "TokenMix",
    "View",
]
