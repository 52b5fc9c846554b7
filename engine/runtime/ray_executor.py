"""Our own small pool of Ray actors.

Ray promises at-least-once and no more, so its own retries are off (max_restarts=0,
max_task_retries=0) and every fault comes back here:

1. A slot is a place in the pool. It starts an actor, waits until the actor has made its worker, and
   then has exactly one work in flight; whichever work was running is the one that is blamed.
2. `ray.wait` with a timeout hears of whatever ends first; `should_stop` is polled in between.
3. A slot that becomes free is given its next work *before* the receipt goes to `on_done`, so that
   the driver's commits cost the actors no time.
4. An exception in the worker costs an attempt and the actor lives. A death costs an attempt and the
   slot gets a new actor, until it has died too often in a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edgesweep.engine.runtime.limits import TimeLimits
from edgesweep.engine.runtime.places import no_place
from edgesweep.engine.runtime.queue import WorkQueue
from edgesweep.engine.runtime.ray_session import close_session, open_session
from edgesweep.engine.runtime.ray_slot import Slot
from edgesweep.engine.runtime.work import (
    Factory,
    Failure,
    Mishap,
    NoPlaceError,
    OnDone,
    PoolExhausted,
    PoolOptions,
    Work,
    WorkerStartError,
)


class RayExecutor:
    """The pool. Ray starts with the first `run`; actors start as work asks for them."""

    def __init__(
        self, factory: Factory, options: PoolOptions, say: Callable[[str], None] = print
    ) -> None:
        self._factory, self._options, self._say = factory, options, say
        self._slots: list[Slot] = []
        self._owns_session = False
        self._last_mishap: Mishap | None = None
        self._last_alive = 0.0
        self._limits = TimeLimits(options)

    def run(
        self,
        works: Sequence[Work],
        on_done: OnDone,
        on_failed: Callable[[Work, Failure], None],
        should_stop: Callable[[], bool],
    ) -> None:
        queue = WorkQueue(works, self._options.max_attempts, on_failed)
        if not len(queue) or should_stop():
            return
        self._open()
        try:
            self._loop(queue, on_done, should_stop)
        except BaseException:
            self._kill_all()
            raise

    def _open(self) -> None:
        if not self._slots:
            self._owns_session = open_session(self._options) or self._owns_session
            self._check_places()
        self._last_alive = time.monotonic()

    def _check_places(self) -> None:
        """An embedded Ray has what it has; a cluster may grow by what is asked of it."""
        if not (lack := no_place(self._options)):
            return
        if self._options.address is None:
            raise NoPlaceError(f"{lack}; ask for fewer")
        self._say(f"warning: {lack}; waiting {self._options.start_timeout_s:.0f} s for more nodes")

    def _loop(self, queue: WorkQueue, on_done: OnDone, should_stop: Callable[[], bool]) -> None:
        while True:
            stopping = should_stop()
            if not stopping:
                self._hand_out(queue)
            if not any(slot.work for slot in self._slots) and (stopping or not len(queue)):
                return
            self._check_alive(queue)
            for slot in self._wait():
                self._settle(slot, queue, on_done, should_stop)

    def _hand_out(self, queue: WorkQueue) -> None:
        """Gives each free slot a work and starts actors where there are more works than slots
        that live."""
        n_busy = sum(slot.work is not None for slot in self._slots)
        while len(self._slots) < min(self._options.actors, n_busy + len(queue)):
            self._slots.append(Slot(self._factory, self._options))
        for slot in self._slots:
            if len(queue) and slot.ready:
                self._give(slot, queue)
        n_starting = sum(slot.starting for slot in self._slots)
        for slot in self._slots:
            if slot.empty and not slot.spent and n_starting < len(queue):
                slot.start()
                n_starting += 1

    def _give(self, slot: Slot, queue: WorkQueue) -> None:
        work, attempt = queue.take()
        slot.give(work, attempt, self._limits.of(work, attempt))

    def _wait(self) -> list[Slot]:
        """Slots whose actor has started, answered or died; none after `poll_s`."""
        import ray

        for slot in self._slots:
            slot.kill_if_late()
        pending = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        if not pending:
            return []
        done, _ = ray.wait(list(pending), num_returns=1, timeout=self._options.poll_s)
        return [pending[ref] for ref in done]

    def _settle(
        self, slot: Slot, queue: WorkQueue, on_done: OnDone, should_stop: Callable[[], bool]
    ) -> None:
        """Books what one slot brought back."""
        work, outcome = slot.collect()
        if isinstance(outcome, Mishap):
            self._last_mishap = outcome
            self._book_mishap(slot, work, outcome, queue)
        elif work is not None:
            self._limits.note(work, slot.busy_s())
            if len(queue) and not should_stop():
                self._give(slot, queue)
            queue.add(on_done(work, outcome))

    def _book_mishap(self, slot: Slot, work: Work | None, mishap: Mishap, queue: WorkQueue) -> None:
        if mishap.kind == "death":
            others = any(not other.spent for other in self._slots if other is not slot)
            slot.count_death(work.key if work else None, is_last=not others)
        if work is not None:
            queue.failed(work, mishap)
        elif mishap.kind == "exception" and self._no_worker_was_ever_made():
            raise WorkerStartError(f"the worker could not start: {mishap.error}")

    def _no_worker_was_ever_made(self) -> bool:
        """Every place was tried and the factory raised in each: it will not work at the next."""
        return all(slot.n_starts_failed and not slot.n_started for slot in self._slots)

    def _check_alive(self, queue: WorkQueue) -> None:
        """Fails loudly rather than waiting for what will not come."""
        if len(queue) and all(slot.spent for slot in self._slots):
            last = self._last_mishap
            raise PoolExhausted(
                f"{len(queue)} works are left and none of the {len(self._slots)} slots is alive: "
                f"each died {self._options.slot_deaths} times in a row without a success; "
                f"the last error was {last.error if last else 'not seen'}"
            )
        if any(slot.pid for slot in self._slots):
            self._last_alive = time.monotonic()
        waited_s = time.monotonic() - self._last_alive
        if waited_s > self._options.start_timeout_s:
            raise WorkerStartError(self._no_place_message(waited_s))

    def _no_place_message(self, waited_s: float) -> str:
        lack = no_place(self._options) or "what they ask for is there, but others have it"
        return f"no actor could start in {waited_s:.0f} s: {lack}; ask for fewer, or add nodes"

    def pids(self) -> list[int]:
        return [slot.pid for slot in self._slots if slot.pid is not None]

    def _kill_all(self) -> None:
        """After this the pool is as new; the next `run` starts afresh."""
        for slot in self._slots:
            slot.kill_actor()
        self._slots = []

    def close(self) -> None:
        self._kill_all()
        if self._owns_session:
            close_session()
            self._owns_session = False
