"""How far off the model may be because of the figures that nobody has published: each varied over its range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot

from .machine import Machine, assumed


@dataclass(frozen=True)
class ErrorBar:
    """Microseconds as believed, and with every assumed figure at either end of its range."""

    us: float
    ends: dict[str, tuple[float, float]]

    def _beyond(self, sign: int) -> float:
        return hypot(
            *(max(0.0, *(sign * (us - self.us) for us in ends)) for ends in self.ends.values())
        )

    @property
    def low(self) -> float:
        """Taken for independent: the root of the sum of squares of what each figure can save."""
        return self.us - self._beyond(-1)

    @property
    def high(self) -> float:
        return self.us + self._beyond(1)

    @property
    def matters(self) -> list[tuple[str, float]]:
        """Figures by the width of what they alone can do, the widest first."""
        widths = {
            name: max(*ends, self.us) - min(*ends, self.us) for name, ends in self.ends.items()
        }
        return sorted(widths.items(), key=lambda item: -item[1])


def error_bar(us: Callable[[Machine], float], given: Machine, *, cards: bool) -> ErrorBar:
    """``us``: what the model says on a machine; ``cards``: whether network cards have part in it."""
    return ErrorBar(
        us(given),
        {
            name: (
                us(given.with_values(**{name: figure.low})),
                us(given.with_values(**{name: figure.high})),
            )
            for name, figure in assumed(given.product).items()
            if figure.low is not None and figure.high is not None
            if cards or not name.startswith("card_")
        },
    )
