"""Frequencies of rotary position embeddings, read back from a table of cosines and sines.

In: the table that an engine turns with, and the frequencies that its module states. Out: those it
turns with: the stated ones where the table is theirs, otherwise what the table says.
"""

from __future__ import annotations

from math import tau
from typing import Final

import torch
from torch import Tensor

#: Steps of a table's dtype that its entries may be off: one of rounding, one of cosines computed
#: by another library.
_STEPS: Final = 2.0


def frequencies_of(table: Tensor, stated: Tensor) -> tuple[Tensor, float]:
    """`table` [positions, rotary width]: cosines, then sines. `stated` float32 [rotary width / 2].

    Frequencies float32 [rotary width / 2], and the factor of the table (YaRN's), rounded to what
    the table's dtype can tell.
    """
    cosines, sines = table.detach().double().cpu().chunk(2, dim=-1)
    step = torch.finfo(table.dtype).eps
    scaling = float((cosines.square() + sines.square()).mean().sqrt())
    scaling = 1.0 if abs(scaling - 1.0) <= step else scaling
    angles = torch.arange(len(table), dtype=torch.float32)[:, None] * stated.cpu()
    if angles.shape == cosines.shape:
        expected = torch.stack([angles.cos(), angles.sin()]).double() * scaling
        off = (torch.stack([cosines, sines]) - expected).abs().max()
        if float(off) <= _STEPS * step * scaling:
            return stated.cpu(), scaling
    return _read(cosines, sines), scaling


def _read(cosines: Tensor, sines: Tensor) -> Tensor:
    """From ever later positions, each of which halves the error of the one before."""
    angles = torch.atan2(sines, cosines)
    found, position = angles[1] % tau, 1
    while position * 2 < len(angles):
        position *= 2
        turns = torch.round((found * position - angles[position]) / tau)
        found = (angles[position] + turns * tau) / position
    return found.float()
