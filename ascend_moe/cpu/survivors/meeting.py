"""Agreeing who is gone: see the package for the protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.survivors.boards import CALLS, DIFFERS, HERE, LEFT, Board, Note


class Meeting:
    """The meetings of one group, as one rank sees them."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._attempt = 0
        self._told: dict[int, int] = {}
        """By rank: its last attempt over whose view this rank has failed; it may have come to share it since."""
        self._taken: dict[int, int] = {}
        """By rank: its last attempt whose offer this rank has taken."""
        self._note = Note(0, LEFT, frozenset())
        self._gave_up_before: dict[int, int] = {}
        """By rank: the attempt that it had given up already when this one began."""

    def agree(
        self, gone: Collection[int], deadline: float, *, what: str, names: Sequence[int]
    ) -> None:
        """Until all that are left have said that the same ranks are gone.

        gone:  ranks of the group; names: what each rank is called in errors

        Raises PeerError, naming ranks: dead as well, not here in time, or gone in the view of others.
        """
        self._attempt += 1
        self._note = Note(self._attempt, HERE, frozenset(gone))
        before = self.board.read().items()
        self._gave_up_before = {rank: one.attempt for rank, one in before if one.stage != HERE}
        self.board.post(self._note)
        left = {*range(self.board.ranks)} - {*gone}
        others = left - {self.board.own}
        while True:
            notes = self.board.read()
            agreeing = {rank: note for rank, note in notes.items() if self._agrees(rank, note)}
            here = {*agreeing}
            # Who offers something has seen all of them; meanwhile some may be further than that.
            if here >= others or any(any(note.offer) for note in agreeing.values()):
                return
            self._look_after(others - here, deadline, what=what, names=names)
            differing = {rank: note for rank, note in notes.items() if self._differs(rank, note)}
            if differing:
                self._told |= {rank: note.attempt for rank, note in differing.items()}
                text = _views(differing, self._note, self.board.own, names)
                said = frozenset().union(*(note.gone for note in differing.values()))
                self._fail(what, text, said - self._note.gone, names, DIFFERS)

    def call_the_roll(self, gone: Collection[int], deadline: float) -> set[int]:
        """Who is not there: neither calls the roll nor meets. Waits until all are, or are known to be dead.

        gone: ranks by the last agreement. Who has come further than that, or calls with it, is there.
        """
        self._attempt += 1
        self._note = Note(self._attempt, CALLS, frozenset(gone))
        self.board.post(self._note)
        others = {*range(self.board.ranks)} - {*gone, self.board.own}
        while True:
            notes = self.board.read()
            missing = others - {rank for rank, note in notes.items() if self._is_there(note)}
            if missing <= self.board.dead() or time.monotonic() > deadline:
                return missing | {*gone}
            time.sleep(self.board.pause_s)

    def _is_there(self, note: Note) -> bool:
        agreed = self._note.gone
        # Who meets without more than these: after a failure for which nobody is the reason.
        return note.gone > agreed or (note.gone == agreed and note.stage in (CALLS, HERE))

    def offer(self, first: int, second: int) -> None:
        """To those that agreed."""
        self._note = self._note._replace(offer=(first, second))
        self.board.post(self._note)

    def offered_by(
        self, leader: int, deadline: float, *, what: str, names: Sequence[int]
    ) -> tuple[int, int]:
        """What ``leader`` offers to those that agreed."""
        while True:
            note = self.board.read().get(leader)
            if note is not None and self._agrees(leader, note) and any(note.offer):
                self._taken[leader] = note.attempt  # good for one meeting
                return note.offer
            self._look_after({leader}, deadline, what=what, names=names)

    def leave(self, stage: int = LEFT) -> None:
        """Nobody waits for this rank any more; but an offer that failed stays, for the others to see."""
        if self._note.offer[0] < 0:
            return
        self._note = self._note._replace(stage=stage, offer=(0, 0))
        self.board.post(self._note)

    def _agrees(self, rank: int, note: Note) -> bool:
        is_new = note.attempt > self._taken.get(rank, 0)
        return is_new and note.stage == HERE and note.gone == self._note.gone

    def _differs(self, rank: int, note: Note) -> bool:
        """Who gave up has no view any more; who has not yet seen that others are dead will see it."""
        if note.stage in (LEFT, CALLS) or note.gone == self._note.gone:
            return False
        if note.attempt <= self._told.get(rank, 0):
            return False
        not_yet = self._note.gone - note.gone
        return not (note.gone < self._note.gone and not_yet <= self.board.dead())

    def _look_after(
        self, missing: Collection[int], deadline: float, *, what: str, names: Sequence[int]
    ) -> None:
        dead = self.board.dead().intersection(missing)
        if dead:
            self._fail(what, f"{called(dead, names)} died as well", dead, names)
        if time.monotonic() > deadline:
            missing = self._never_came(missing)
            text = f"{called(missing, names)} did not come in time to go on without the others"
            self._fail(what, text, missing, names)
        time.sleep(self.board.pause_s)

    def _never_came(self, missing: Collection[int]) -> Collection[int]:
        """Who came, and gave up a moment ago because of others as this rank does, is not the reason."""
        before = self._gave_up_before
        came = {
            rank for rank, note in self.board.read().items() if note.attempt > before.get(rank, 0)
        }
        return {*missing} - came or missing

    def _fail(
        self,
        what: str,
        text: str,
        ranks: Collection[int],
        names: Sequence[int],
        stage: int = LEFT,
    ) -> NoReturn:
        self.leave(stage)
        raise PeerError(f"{what}: {text}", sorted(names[rank] for rank in ranks))


def called(ranks: Collection[int], names: Sequence[int]) -> str:
    called = sorted(names[rank] for rank in ranks)
    return f"rank {called[0]}" if len(called) == 1 else f"ranks {', '.join(map(str, called))}"


def _views(differing: dict[int, Note], own: Note, rank: int, names: Sequence[int]) -> str:
    view: Callable[[int, Note], str] = lambda of, note: (  # noqa: E731
        f"rank {names[of]} says {sorted(names[one] for one in note.gone)}"
    )
    others = "; ".join(view(of, note) for of, note in sorted(differing.items()))
    return f"ranks disagree about who is gone: {view(rank, own)}; {others}"
