"""Quality against cost. No torch, no ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """A finished trial."""

    quality: float
    """dB; higher is better."""
    cost: float
    """In denoiser calls; lower is better."""


def front(tried: Sequence[Tried]) -> list[int]:
    """Indices of those that none beats in one and equals in the other, cheapest first; of equal ones the first."""
    order = sorted(range(len(tried)), key=lambda n: (tried[n].cost, -tried[n].quality, n))
    best, found = -math.inf, []
    for n in order:
        if tried[n].quality > best:
            best = tried[n].quality
            found.append(n)
    return found


def price(cost: float, price_db: float) -> float:
    """What a cost takes from a quality, in dB: `price_db` for every doubling."""
    return price_db * math.log2(max(cost, 1.0))


def recommended(tried: Sequence[Tried], price_db: float) -> int | None:
    """Index of the point of the front with the greatest quality after its price; None of nothing."""
    return max(front(tried), key=lambda n: tried[n].quality - price(tried[n].cost, price_db), default=None)
