"""Which shapes of a skeleton drawing are its joints.

A disc has its joint's colour, but so have pieces of a drawn hand. So a disc counts if a limb leads from it to a neighbouring joint, or
if nothing else in the picture could be that joint's disc."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Float, UInt8

from dpscale.diffusion.conditions import LIMBS
from dpscale.preprocess.skeleton_shapes import NUM_JOINTS, Disc, Ray, Stick, find_discs, find_sticks

_PASSES = 3
"""Looks at all joints, each with what the one before found."""
_SLACK_PX = 4.0
"""Px, beyond a disc's width, from its centre to where a limb seems to end: its tip is thin and blurs away."""
_FULL, _LEFT_OVER = 0.6, 0.2
"""Fullness of a disc that is hardly covered, and below which nothing can be said about its centre."""
_LINKED = 0.2
"""Part of the line between two joints, from disc to disc, that must have their limb's colour: others cross it."""
_HALF = 0.5
"""What a limb counts for whose other joint is not seen, or that lies whole under the discs at its ends."""
_GAP_RADII = 4.0
"""Farthest that ends of limbs may lie from each other, over a disc's radius, to be one joint: the tips are covered with it."""


@dataclass(frozen=True)
class Shapes:
    """All that may be a limb or a joint's disc in one frame."""

    labels: UInt8[np.ndarray, "H W"]
    """See skeleton_shapes.colour_labels."""

    @cached_property
    def sticks(self) -> list[list[Stick]]:
        """By limb, the largest first."""
        return find_sticks(self.labels)

    @cached_property
    def discs(self) -> list[list[Disc]]:
        """By joint, the largest first."""
        return find_discs(self.labels)

    @cached_property
    def radius(self) -> float:
        """Usual radius of a disc in px."""
        areas = [found[0].area for found in self.discs if found]
        return float(np.sqrt(np.median(areas) / np.pi)) if areas else 1.0

    def joints(self) -> dict[int, Disc]:
        """The discs of the joints that are seen."""
        chosen: dict[int, Disc] = {}
        for _ in range(_PASSES):
            chosen = {joint: disc for joint in range(NUM_JOINTS) if (disc := self._best(joint, chosen))}
        return chosen

    def covered(self, joint: int, seen: dict[int, Disc]) -> Float[np.ndarray, " 2"] | None:
        """The place of a joint whose disc is not seen: the end of a limb that comes from a seen joint, and where ends of the joint's
        other limbs meet on or beyond it; or where ends of several limbs meet."""
        leading, choices = [], []
        for limb, other in _limbs(joint):
            from_seen = [stick for stick in self.sticks[limb] if other in seen and self._leads(stick, seen[other])]
            if from_seen:
                leading.append(from_seen[0].ray_from(seen[other].center))
            elif self.sticks[limb]:
                choices.append(self.sticks[limb][0].ends)
        if len(choices) + len(leading) > 1:
            return self._meeting(choices, leading)
        return leading[0].point_at(self.radius) if leading else None

    def _meeting(self, choices: list[np.ndarray], leading: list[Ray]) -> Float[np.ndarray, " 2"] | None:
        """Middle of one end of each limb and of the nearest points of the rays, of the ends for which these lie closest together;
        None if even they lie far apart."""
        best, spread = None, _GAP_RADII * self.radius + _SLACK_PX
        for ends in product(*choices):
            start = np.mean(ends, 0) if ends else np.mean([ray.start for ray in leading], 0)
            points = np.stack([*ends, *(ray.nearest(start) for ray in leading)])
            apart = np.ptp(points, axis=0).max()
            if apart <= spread:
                best, spread = points.mean(0), apart
        return best

    def _leads(self, stick: Stick, disc: Disc) -> float:
        return stick.agrees(disc.center, 2 * self.radius + _SLACK_PX)

    def _best(self, joint: int, chosen: dict[int, Disc]) -> Disc | None:
        discs = [disc for disc in self.discs[joint] if disc.fullness(self.radius) >= _LEFT_OVER]
        if not discs:
            return None
        support = [sum(self._link(disc, limb, other, chosen) for limb, other in _limbs(joint)) for disc in discs]
        fullness = [disc.fullness(self.radius) for disc in discs]
        best = int(np.argmax(np.add(support, fullness)))
        alone = fullness[best] >= _FULL and sum(full >= _FULL for full in fullness) == 1 and not self._led_to(joint, chosen)
        return discs[best] if support[best] > 0 or alone else None

    def _led_to(self, joint: int, chosen: dict[int, Disc]) -> bool:
        """Whether a limb leads to the joint from one that is known."""
        return any(self._leads(stick, chosen[other]) == 1 for limb, other in _limbs(joint) if other in chosen for stick in self.sticks[limb])

    def _link(self, disc: Disc, limb: int, other: int, chosen: dict[int, Disc]) -> float:
        """How surely a limb leads from the disc to its other joint, 0..1."""
        if other in chosen:
            away = np.linalg.norm(chosen[other].center - disc.center)
            return _HALF if away <= 2 * self.radius + _SLACK_PX else self._drawn(limb, disc, chosen[other])
        loose = [_HALF * self._leads(stick, disc) for stick in self.sticks[limb][:1]]
        return max(loose + [self._drawn(limb, disc, neighbour) for neighbour in self.discs[other]], default=0.0)

    def _drawn(self, limb: int, start: Disc, end: Disc) -> float:
        """Part of the line from disc to disc that has the limb's colour; 0 where it is too little to tell."""
        length = np.linalg.norm(end.center - start.center)
        if length <= 2 * self.radius:
            return 0.0
        steps = np.arange(self.radius, length - self.radius)[:, None] / length
        x, y = np.floor(start.center + steps * (end.center - start.center)).astype(int).T
        part = float((self.labels[y, x] == NUM_JOINTS + limb).mean()) if len(x) else 0.0
        return part if part >= _LINKED else 0.0


def _limbs(joint: int) -> list[tuple[int, int]]:
    """The limbs that end in a joint, each with the joint at its other end."""
    return [(limb, a + b - joint) for limb, (a, b) in enumerate(LIMBS) if joint in (a, b)]
