"""Every event log does what a few lines of plain Python do, whatever is asked of it in whatever order."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from streaming.errors import Fenced, IdempotencyMismatch, StreamExpired
from streaming.eventlogs import TERMINAL, Claim
from streaming.events import Record
from tests.contracts.conftest import NewStore
from tests.doubles import all_records, new_stream

PAYLOADS = st.lists(st.binary(max_size=20).map(lambda some: some.replace(b"\n", b"")), min_size=1, max_size=5)
KEYS = st.sampled_from(["a", "b", "c"])


@dataclass
class Model:
    """A stream as the contract has it."""

    fingerprint: str
    worker: str
    records: list[Record] = field(default_factory=list)
    gen: int = 1
    state: str = "running"
    cancel_requested: bool = False
    erased: bool = False

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


class AnyLog(RuleBasedStateMachine):
    new_store: ClassVar[NewStore]
    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        open_log = type(self).new_store()
        self.handles = [open_log(), open_log()]
        self.models: dict[str, Model] = {}
        self.keys: dict[str, str] = {}
        for worker in ("one", "two"):
            self.handles[0].renew(worker, 3600)

    def teardown(self) -> None:
        for stream_id, model in self.models.items():
            if not model.erased:
                assert all_records(self.handles[0], stream_id) == model.records
        for log in self.handles:
            log.close()

    @rule(
        target=streams,
        handle=st.integers(0, 1),
        key=st.none() | KEYS,
        fingerprint=st.sampled_from("xy"),
        worker=st.sampled_from(["one", "two"]),
        payloads=PAYLOADS,
    )
    def create(self, handle: int, key: str | None, fingerprint: str, worker: str, payloads: Any) -> str:
        log = self.handles[handle]
        new = new_stream(log, worker, key=key, fingerprint=fingerprint)
        known = self.keys.get(key or "")
        if known and self.models[known].fingerprint != fingerprint:
            with pytest.raises(IdempotencyMismatch):
                log.create(new, payloads)
            return known
        found = log.create(new, payloads)
        if known:
            assert found == known
            return known
        assert found == new.stream_id
        records = [Record(1, seq, payload) for seq, payload in enumerate(payloads, 1)]
        self.models[found] = Model(fingerprint, worker, records)
        if key:
            self.keys[key] = found
        return found

    @rule(
        handle=st.integers(0, 1),
        stream_id=streams,
        off_by=st.sampled_from([0, 0, 0, 0, -1, 1, 2]),
        gen_off_by=st.sampled_from([0, 0, 0, 0, -1, 1]),
        payloads=PAYLOADS,
        end=st.sampled_from([None, None, None, *sorted(TERMINAL)]),
    )
    def append(
        self, handle: int, stream_id: str, off_by: int, gen_off_by: int, payloads: Any, end: Any
    ) -> None:
        model = self.models[stream_id]
        seq = len(model.records) + 1 + off_by
        claim = Claim(stream_id, model.gen + gen_off_by)
        if off_by or gen_off_by or model.ended or model.erased:
            with pytest.raises((Fenced, StreamExpired)):
                self.handles[handle].append(claim, seq, payloads, end)
            return
        assert self.handles[handle].append(claim, seq, payloads, end) == model.cancel_requested
        model.records += [Record(claim.gen, place, payload) for place, payload in enumerate(payloads, seq)]
        model.state = end or model.state

    @rule(
        handle=st.integers(0, 1),
        stream_id=streams,
        worker=st.sampled_from(["one", "two"]),
        force=st.booleans(),
    )
    def take_over(self, handle: int, stream_id: str, worker: str, force: bool) -> None:
        model = self.models[stream_id]
        if model.erased:
            with pytest.raises(StreamExpired):
                self.handles[handle].take_over(stream_id, worker, force)
            return
        claim = self.handles[handle].take_over(stream_id, worker, force)
        if model.ended or not force:
            assert claim is None
            return
        assert claim == Claim(stream_id, model.gen + 1)
        model.gen += 1
        model.worker = worker

    @rule(handle=st.integers(0, 1), stream_id=streams)
    def request_cancel(self, handle: int, stream_id: str) -> None:
        model = self.models[stream_id]
        self.handles[handle].request_cancel(stream_id)
        model.cancel_requested = model.cancel_requested or not model.ended

    @rule(handle=st.integers(0, 1), stream_id=streams)
    def erase(self, handle: int, stream_id: str) -> None:
        model = self.models[stream_id]
        if model.erased:
            with pytest.raises(StreamExpired):
                self.handles[handle].erase(stream_id)
            return
        self.handles[handle].erase(stream_id)
        if model.ended:
            model.erased = True
            self.keys = {key: found for key, found in self.keys.items() if found != stream_id}

    @rule(handle=st.integers(0, 1), key=KEYS)
    def find(self, handle: int, key: str) -> None:
        assert self.handles[handle].find(key) == self.keys.get(key)

    @rule(handle=st.integers(0, 1), stream_id=streams, after=st.integers(0, 30), limit=st.integers(1, 20))
    def read(self, handle: int, stream_id: str, after: int, limit: int) -> None:
        model = self.models[stream_id]
        if model.erased:
            with pytest.raises(StreamExpired):
                self.handles[handle].read(stream_id, after, limit)
            return
        page = self.handles[handle].read(stream_id, after, limit)
        assert list(page.records) == model.records[after : after + limit]
        assert page.closed == (model.ended and after + limit >= len(model.records))

    @invariant()
    def requests_to_cancel_are_told_to_the_owner(self) -> None:
        for worker in ("one", "two"):
            expected = [
                stream_id
                for stream_id, model in self.models.items()
                if model.worker == worker and model.cancel_requested and not model.ended
            ]
            assert sorted(self.handles[1].cancel_requests(worker)) == sorted(expected)

    @invariant()
    def heads_are_right(self) -> None:
        for stream_id, model in self.models.items():
            if not model.erased:
                head = self.handles[1].head(stream_id)
                assert (head.state, head.gen, head.last_seq, head.worker_id) == (
                    model.state,
                    model.gen,
                    len(model.records),
                    model.worker,
                )


def test_a_log_does_what_its_model_does(new_store: NewStore) -> None:
    machine = type("Machine", (AnyLog,), {"new_store": staticmethod(new_store)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
