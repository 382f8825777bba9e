"""What a person sees of a running job: one line a stage, with an estimate of what is left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.types import Outcome
from jobs.pieces import pieces


class Progress:
    """Counts finished pieces in the run folder, so that it needs no word from the workers."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        self._config, self._layout = config, layout
        self._console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """On a terminal, a line that follows the stage while it runs."""
        start, finished_before = time.monotonic(), self._count(stage)[0]
        with Live(console=self._console, transient=True, refresh_per_second=1, get_renderable=lambda: self._line(stage, start, finished_before)):
            yield

    def ended(self, stage: str, outcomes: Sequence[Outcome], seconds: float) -> None:
        """The stage's lasting line, and one for each failure and each note."""
        made, skipped = sum(o.ok and not o.skipped for o in outcomes), sum(o.skipped for o in outcomes)
        counts = {"done": made, "already there": skipped, "failed": len(outcomes) - made - skipped}
        words = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
        self.say(f"{stage:<10}  {clock(seconds):>8}  {words or 'nothing to do'}")
        for outcome in outcomes:
            if outcome.error or outcome.note:
                self.say(f"  {outcome.name}: {outcome.error or outcome.note}")

    def _count(self, stage: str) -> tuple[int, int]:
        finished = [piece.finished for piece in pieces(self._config, self._layout) if piece.stage == stage]
        return sum(finished), len(finished)

    def _line(self, stage: str, start: float, finished_before: int) -> Text:
        finished, total = self._count(stage)
        elapsed = time.monotonic() - start
        left = elapsed / (finished - finished_before) * (total - finished) if finished > finished_before else None
        return Text(f"{stage:<10}  {clock(elapsed):>8}  {finished} of {total}" + (f", about {clock(left)} left" if left is not None else ""))


def clock(seconds: float) -> str:
    """75.2 -> "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
