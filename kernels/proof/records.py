"""Records over the network card, read by three flags: in order, and at once as CANN 9.1.0-beta.1 did.

The kernels are in ``tests/kernels/mini_card_order.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .cards import CardGroup, Wire
from .execution import Outcome, old_window
from .group import CONTROL_BYTES, NONCE
from .simulator import Schedule, Simulator

RECORDS, RECORD_WORDS, PITCH_WORDS = 5, 150, 160


@dataclass(frozen=True)
class RecordsCase:
    """Rank 0 sends five records, the two cores of rank 1 must have all of them, whole."""

    in_order: bool

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        with Simulator(schedule, site) as simulator:
            group = CardGroup(
                simulator, (0, 1), CONTROL_BYTES + 8192, Wire(depth=4), old_data=old_window(0)
            )
            expected = torch.arange(1000, 1000 + RECORDS, dtype=torch.int32)
            expected = expected[:, None].repeat(1, PITCH_WORDS)
            expected[:, 0] = NONCE
            expected[:, 1] = torch.arange(1, RECORDS + 1)
            out = simulator.alloc(1, expected.numel() * 4, "out")
            reader = "mini_records_in_order" if self.in_order else "mini_records_at_once"
            for rank, kernel in enumerate(("mini_records_send", reader)):
                arguments = [group.contexts[rank], group.tables[rank], out]
                simulator.launch(rank, kernel, arguments, 1 + rank)
            finished = simulator.run()
            outcome = Outcome(simulator.findings, simulator.deadlock, [], sites=simulator.sites)
            if finished:
                found, written = simulator.get(out, expected)
                missing = RECORDS - int(written[:, 0].sum())
                if missing:
                    outcome.mismatches.append(f"{missing} of {RECORDS} records are not written")
                elif not torch.equal(found[:, :RECORD_WORDS], expected[:, :RECORD_WORDS]):
                    outcome.mismatches.append("a record differs")
            return outcome
