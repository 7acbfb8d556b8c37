"""What the proof runs over the network card: ping-pong on queues of three depths, records read in order and at once."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from random import Random
from typing import Any

from .cards import Wire
from .ping_pong import PingPongCase
from .records import RecordsCase
from .simulator import Schedule
from .tally import Tally

DEPTHS = (4, 16, 128)


def card_schedule(seed: int) -> Schedule:
    """Uneven and stalled ranks, copies that land early and late."""
    random = Random(seed)
    return Schedule(
        seed=seed,
        landing_percent=random.choice((1, 5, 30, 70, 95)),
        uneven=random.random() < 0.5,
        stalled_rank=random.choice((-1, 0, 1)),
        stall_from=random.choice((0, random.randrange(400))),
        stall_steps=random.choice((100, 300, 1000)),
        max_steps=1_000_000_000,
    )


def ping_pong(depth: int, messages: int, seed: int) -> list[str]:
    """What goes wrong in at least so many messages, there and back, on queue pairs of this depth.

    Heads begin shortly before 16 or 32 bits are full, so both run over.
    """
    random = Random(seed)
    wire = Wire(
        depth=depth,
        queues=random.choice((1, 1, 3)),
        head=random.choice((0xFFFF, 0xFFFFFFFF)) - random.randrange(100),
    )
    burst = random.choice((1, 3, 6))
    size = random.choice((4, 60, 600, 5000))
    turns = -(-messages // (2 * wire.queues * (burst + 1)))
    case = PingPongCase(wire, turns, burst, size)
    return case.run(card_schedule(seed)).problems


def run_records(seeds: range) -> tuple[int, list[str]]:
    """On how many schedules every record is found by a reader that keeps the order; what went wrong on the others."""
    problems = [RecordsCase(in_order=True).run(card_schedule(seed)).problems for seed in seeds]
    return sum(not found for found in problems), [text for found in problems for text in found]


def first_loss(schedules: int) -> int:
    """The first schedule on which a reader of all flags at once loses a record; -1 if there is none."""
    for seed in range(schedules):
        if RecordsCase(in_order=False).run(card_schedule(seed)).mismatches:
            return seed
    return -1


def chunks(number: int, size: int) -> list[range]:
    return [range(first, min(first + size, number)) for first in range(0, number, size)]


CARD_SOURCES = ("rdma_post.h", "ping_pong.h")
"""Of ``kernels/device``: what posts to a network card."""


class CardRuns:
    """All of that, started in a pool and then waited for."""

    def __init__(self, pool: ProcessPoolExecutor, messages: int, schedules: int) -> None:
        """messages: at least so many, there and back, on each depth; schedules: of the readers."""
        self.messages, self.schedules = messages, schedules
        self._turns = {
            (depth, seed): pool.submit(ping_pong, depth, messages, seed)
            for depth in DEPTHS
            for seed in range(4)
        }
        self._records = [pool.submit(run_records, seeds) for seeds in chunks(schedules, 500)]
        self._loss = pool.submit(first_loss, 4000)

    def record(self, tally: Tally, sites: list[str], survivors: list[str]) -> dict[str, Any]:
        """Adds to the tally; the figures."""
        for (depth, seed), run in self._turns.items():
            tally.add(f"ping-pong, depth {depth}, seed {seed}", run.result())
        in_order = 0
        for records in self._records:
            passed, problems = records.result()
            in_order += passed
            tally.examples = (tally.examples + problems)[:10]
        loss = self._loss.result()
        if loss < 0:
            tally.add("records, all flags at once", ["no record is lost on any schedule"])

        def of_card(names: list[str]) -> int:
            return sum(site.split(":")[0].endswith(CARD_SOURCES) for site in names)

        return {
            "queue_depths": list(DEPTHS),
            "messages_per_depth": 4 * self.messages,
            "schedules_records_in_order": self.schedules,
            "records_in_order_passed": in_order,
            "records_at_once_first_lost": loss,
            "mutations_caught": of_card(sites) - of_card(survivors),
            "mutations_total": of_card(sites),
        }
