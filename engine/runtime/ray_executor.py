"""Our own small pool of Ray actors.

Ray promises at-least-once and no more, so its own retries are off (max_restarts=0,
max_task_retries=0) and every fault comes back here:

1. A slot is a place in the pool. It starts an actor, waits until the actor has made its worker, and
   then has exactly one work in flight, which the policy chooses.
2. `ray.wait` with a timeout hears of whatever ends first; `should_stop` is polled in between.
3. A slot that becomes free is given its next work *before* the receipt goes to `on_done`, so that
   the driver's commits cost the actors no time.
4. An exception in the worker costs an attempt and the actor lives. A death costs an attempt and the
   slot gets a new actor, until it has died too often in a row. A death with its node costs nothing;
   Ray may be late to know of it, so that the attempt stays in doubt for a moment.
5. A node where no worker can be made, or that is to blame for what failed there, has its slots
   emptied, and they are filled elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import ray

from edgesweep.engine.runtime.blame import Blame
from edgesweep.engine.runtime.cluster import DOUBT_S, Cluster
from edgesweep.engine.runtime.limits import TimeLimits
from edgesweep.engine.runtime.policy import Attempt, Policy, shut_out
from edgesweep.engine.runtime.ray_session import close_session, open_session, start_grants
from edgesweep.engine.runtime.ray_slot import Slot
from edgesweep.engine.runtime.work import (
    Admit,
    Event,
    Factory,
    Failure,
    Mishap,
    NoPlaceError,
    OnDone,
    PoolExhausted,
    PoolOptions,
    Receipt,
    Tell,
    ToCome,
    Work,
    WorkerStartError,
    mishap_of,
    say,
)


class RayExecutor:
    """The pool. Ray starts with the first `run`; actors start as work asks for them."""

    def __init__(
        self,
        factory: Factory,
        options: PoolOptions,
        tell: Tell = say,
        admit: Admit = lambda greeting: None,
    ) -> None:
        self._factory, self._options, self._tell, self._admit = factory, options, tell, admit
        self._slots: list[Slot] = []
        self._blame, self._limits = Blame(options), TimeLimits(options)
        self._cluster = Cluster(options)
        self._grants: Any = None
        self._owns_session = False
        self._last_mishap: Mishap | None = None
        self._last_alive = 0.0
        self._worked: set[str] = set()  # nodes where a worker was made
        self._gone: set[str] = set()
        self._doubted: list[tuple[float, Slot, Attempt, Mishap]] = []

    def run(
        self,
        works: Iterable[Work],
        on_done: OnDone,
        on_failed: Callable[[Work, Failure], None],
        should_stop: Callable[[], bool],
        to_come: ToCome = lambda: 0,
    ) -> None:
        options, learned = self._options, (self._blame, self._limits)
        self._policy = Policy(works, options, on_failed, *learned, self._tell)
        if self._policy.is_over or should_stop():
            return
        self._open()
        try:
            self._loop(on_done, should_stop, to_come)
        except BaseException:
            self._kill_all()
            raise

    def _open(self) -> None:
        if not self._slots:
            self._owns_session = open_session(self._options) or self._owns_session
            self._check_places()
        if self._options.backup and self._grants is None:
            self._grants = start_grants()
        self._doubted = []
        self._last_alive = time.monotonic()

    def _check_places(self) -> None:
        """An embedded Ray has what it has; a cluster may grow by what is asked of it."""
        if not (lack := self._cluster.no_place()):
            return
        if self._options.address is None:
            raise NoPlaceError(f"{lack}; ask for fewer")
        limit_s = self._options.start_timeout_s
        wait = "waiting" if limit_s is None else f"waiting {limit_s:.0f} s"
        self._tell(Event("no_place", f"warning: {lack}; {wait} for more nodes"))

    def _loop(self, on_done: OnDone, should_stop: Callable[[], bool], to_come: ToCome) -> None:
        while True:
            stopping = should_stop()
            if not stopping:
                self._hand_out()
                self._give_back_idle(to_come)
            if self._policy.is_over or (stopping and not any(slot.attempt for slot in self._slots)):
                return
            self._check_alive()
            for slot in self._wait():
                self._settle(slot, on_done, should_stop)
            self._settle_doubts()

    # --- giving --------------------------------------------------------------------------------
    def _hand_out(self) -> None:
        """Gives each free slot a work and starts actors where there are more works than slots
        that live."""
        n_busy = sum(slot.attempt is not None for slot in self._slots)
        while len(self._slots) < min(self._options.actors, n_busy + self._policy.n_waiting):
            self._slots.append(Slot(self._factory, self._options))
        for slot in self._slots:
            if slot.ready:
                self._give(slot)
        n_starting = sum(slot.starting for slot in self._slots)
        for slot in self._slots:
            if slot.empty and not slot.spent and n_starting < self._policy.n_waiting:
                slot.start(self._blame.shut_out.keys() & self._cluster.alive().keys())
                n_starting += 1

    def _give(self, slot: Slot) -> None:
        nodes = {slot.node for slot in self._slots if slot.pid is not None}
        attempt = self._policy.next(slot.node, slot.holds, nodes)
        if attempt is not None:
            slot.give(attempt, self._grants)

    def _give_back_idle(self, to_come: ToCome) -> None:
        """The tail of a run holds no machine that it has no work for; one is kept for backups."""
        policy, spare = self._policy, int(self._options.backup)
        since = time.monotonic() - self._options.idle_s
        idle = [slot for slot in self._slots if slot.ready and slot.idle_since < since]
        if not idle or policy.n_waiting:
            return
        n_needed = len(policy.in_flight) + to_come() + spare
        n_live = sum(slot.pid is not None for slot in self._slots)
        for slot in idle[: max(0, n_live - n_needed)]:
            slot.kill_actor()
            self._slots.remove(slot)

    # --- hearing -------------------------------------------------------------------------------
    def _wait(self) -> list[Slot]:
        """Slots whose actor has started, answered or died; none after `poll_s`."""
        for slot in self._slots:
            if slot.attempt is not None and self._policy.is_late(slot.attempt):
                slot.kill_late()
        pending = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        if not pending:
            if self._doubted:
                time.sleep(self._options.poll_s)
            return []
        done, _ = ray.wait(list(pending), num_returns=1, timeout=self._options.poll_s)
        return [pending[ref] for ref in done]

    def _settle(self, slot: Slot, on_done: OnDone, should_stop: Callable[[], bool]) -> None:
        """Books what one slot brought back."""
        attempt, outcome = slot.collect()
        if isinstance(outcome, Mishap):
            self._last_mishap = outcome
        if attempt is None:
            self._book_start(slot, outcome)
        elif attempt not in self._policy.in_flight:
            return  # the work was done by the other attempt, which ended this one
        elif isinstance(outcome, Mishap):
            self._book_mishap(slot, attempt, outcome)
        else:
            self._end_others(attempt, self._policy.done(attempt))
            self._empty_shut_out()
            if self._policy.n_waiting and slot.ready and not should_stop():
                self._give(slot)
            self._policy.add(on_done(attempt.work, outcome))

    def _end_others(self, attempt: Attempt, others: list[Attempt]) -> None:
        """The other attempt at a work that was done; where there is none, nobody will ask again."""
        for slot in self._slots:
            if slot.attempt in others:
                slot.kill_actor()
        if self._grants is not None and attempt.number == 1 and not others:
            self._grants.forget.remote(attempt.work.key, attempt.number)

    def _book_mishap(self, slot: Slot, attempt: Attempt, mishap: Mishap) -> None:
        if self._grants is not None:
            ray.get(self._grants.forget.remote(attempt.work.key, attempt.number))
        if mishap.kind == "refused" or mishap.node in self._blame.shut_out:
            self._policy.given_back(attempt)
        elif mishap.kind == "lost":
            self._book_lost(attempt, mishap)
        elif self._cluster.is_doubtful(mishap):
            self._doubted.append((time.monotonic() + DOUBT_S, slot, attempt, mishap))
        else:
            self._book_failed(slot, attempt, mishap)

    def _book_failed(self, slot: Slot, attempt: Attempt, mishap: Mishap) -> None:
        if mishap.kind == "death":
            self._count_death(slot, attempt.work.key)
        self._policy.failed(attempt, mishap)
        self._empty_shut_out()

    def _book_lost(self, attempt: Attempt, mishap: Mishap) -> None:
        if mishap.node not in self._gone:
            self._gone.add(mishap.node)
            text = f"node {mishap.where} is gone: what was in work there is done elsewhere"
            self._tell(Event("node_lost", text, {"node": mishap.node, "host": mishap.host}))
        self._policy.lost(attempt, mishap)

    def _settle_doubts(self) -> None:
        """Deaths whose node turned out to be gone, or to be well."""
        doubted, self._doubted = self._doubted, []
        for until, slot, attempt, mishap in doubted:
            if self._cluster.is_gone(mishap.node):
                self._book_lost(attempt, mishap)
            elif time.monotonic() > until:
                self._book_failed(slot, attempt, mishap)
            else:
                self._doubted.append((until, slot, attempt, mishap))

    # --- starts, deaths and nodes --------------------------------------------------------------
    def _book_start(self, slot: Slot, outcome: Receipt | Mishap) -> None:
        """A worker was made, and may have works; or not, which is its node's fault until one was
        made there."""
        if not isinstance(outcome, Mishap):
            outcome = self._not_admitted(slot, outcome) or outcome
        if not isinstance(outcome, Mishap):
            self._worked.add(slot.node)
            self._empty_shut_out()
        elif outcome.kind == "exception" and outcome.node and outcome.node not in self._worked:
            if outcome.node not in self._blame.shut_out:
                self._blame.shut(outcome.node, outcome)
                self._tell(shut_out(outcome))
        elif outcome.kind != "lost":
            self._count_death(slot, None)

    def _not_admitted(self, slot: Slot, started: Receipt) -> Mishap | None:
        try:
            self._admit(started["greeting"])
        except Exception as error:
            node, host = slot.node, slot.host
            slot.kill_actor()
            found = mishap_of(error)
            return Mishap("exception", found.error, found.traceback, node=node, host=host)
        return None

    def _count_death(self, slot: Slot, key: str | None) -> None:
        others = any(not other.spent for other in self._slots if other is not slot)
        slot.count_death(key, is_last=not others)

    def _empty_shut_out(self) -> None:
        for slot in self._slots:
            if slot.pid is not None and slot.node in self._blame.shut_out:
                slot.kill_actor()

    def _check_alive(self) -> None:
        """Fails loudly rather than waiting for what will not come."""
        policy, last = self._policy, self._last_mishap
        self._check_shut_out()
        if policy.n_waiting and all(slot.spent for slot in self._slots):
            raise PoolExhausted(
                f"{policy.n_waiting} works are left and none of the {len(self._slots)} slots is "
                f"alive: each died {self._options.slot_deaths} times in a row without a success; "
                f"the last error was {last.error if last else 'not seen'}"
            )
        if any(slot.pid for slot in self._slots):
            self._last_alive = time.monotonic()
        waited_s, limit_s = time.monotonic() - self._last_alive, self._options.start_timeout_s
        if limit_s is not None and waited_s > limit_s:
            lack = self._cluster.no_place() or "what they ask for is there, but others have it"
            raise WorkerStartError(
                f"no actor could start in {waited_s:.0f} s: {lack}; ask for fewer, or add nodes"
            )

    def _check_shut_out(self) -> None:
        """No node that is left may have a work."""
        shut, nodes = self._blame.shut_out, self._cluster.places() if self._blame.shut_out else ()
        if not nodes or not shut.keys() >= nodes:
            return
        error = [mishap.error for node, mishap in shut.items() if node in nodes][-1]
        if self._worked & nodes:
            raise PoolExhausted(f"all {len(nodes)} nodes are shut out; the last error was {error}")
        where = f" on any of {len(nodes)} nodes" if len(nodes) > 1 else ""
        raise WorkerStartError(f"the worker could not start{where}: {error}")

    # --- ending --------------------------------------------------------------------------------
    def pids(self) -> list[int]:
        return [slot.pid for slot in self._slots if slot.pid is not None]

    def _kill_all(self) -> None:
        """After this the pool is as new; the next `run` starts afresh."""
        for slot in self._slots:
            slot.kill_actor()
        self._slots = []

    def close(self) -> None:
        self._kill_all()
        if self._grants is not None:
            ray.kill(self._grants)
            self._grants = None
        if self._owns_session:
            close_session()
            self._owns_session = False
