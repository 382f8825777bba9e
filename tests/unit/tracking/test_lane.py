"""Delivery to stores that fail in every way that a real one can; the real one is in tests/ray/test_mlflow_server_on_ray.py."""

from __future__ import annotations

import json
import threading
import time

import pytest

from dpscale.tracking import lane as lane_module
from dpscale.tracking.lane import Lane, Outage, Refused
from dpscale.tracking.spool import Spool


class Rows:
    """A store that keeps each event once, and fails as `answers` (called with the number of the call and the events) says."""

    def __init__(self, answers=lambda call, events: None):
        self.answers, self.calls, self.rows = answers, 0, {}

    def __call__(self, events):
        self.calls += 1
        self.answers(self.calls, events)
        self.rows |= {event["n"]: event for event in events}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lane_module, "MAX_PAUSE_S", 0.02)
    monkeypatch.setattr(lane_module, "LINGER_S", 0.01)


def lane_of(tmp_path, rows):
    return Lane(Spool(tmp_path), rows, tmp_path / "refused.jsonl")


def arrived(lane, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if lane.wait(timeout_s):
            return True
        time.sleep(0.02)
    return False


def test_events_arrive_from_many_threads_each_once(tmp_path):
    rows = Rows()
    lane = lane_of(tmp_path, rows)
    threads = [threading.Thread(target=lambda i=i: [lane.append([{"n": 100 * i + j}]) for j in range(100)]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lane.wait(10)
    assert sorted(rows.rows) == list(range(800))
    assert rows.calls < 400  # in batches


def test_an_answer_that_is_lost_is_sent_again(tmp_path, caplog):
    rows = Rows()

    def lost(call, events):
        if call <= 3:
            rows.rows |= {event["n"]: event for event in events}  # it arrived
            raise Outage("the answer is lost")

    rows.answers = lost
    lane = lane_of(tmp_path, rows)
    lane.append([{"n": n} for n in range(5)])
    assert arrived(lane)
    assert sorted(rows.rows) == [0, 1, 2, 3, 4]
    assert caplog.text.count("the run goes on") == 1
    assert "answers again" in caplog.text


def test_waiting_does_not_wait_for_a_store_that_is_away_and_nothing_is_lost(tmp_path):
    away = threading.Event()
    away.set()

    def answers(call, events):
        if away.is_set():
            raise Outage("away")

    rows = Rows(answers)
    lane = lane_of(tmp_path, rows)
    lane.append([{"n": 0}])
    start = time.monotonic()
    assert not lane.wait(30)
    assert time.monotonic() - start < 5
    lane.close()
    away.clear()
    assert lane_of(tmp_path, rows).wait(10)
    assert list(rows.rows) == [0]


def test_a_store_that_is_too_slow_for_many_gets_fewer_at_once(tmp_path):
    sizes = []

    def answers(call, events):
        sizes.append(len(events))
        if len(events) > 100:
            raise Outage("timed out")

    rows = Rows(answers)
    lane = lane_of(tmp_path, rows)
    lane.append([{"n": n} for n in range(1000)])
    assert arrived(lane)
    assert sorted(rows.rows) == list(range(1000))
    assert max(sizes) == 1000


def test_what_is_refused_is_left_out_and_kept_aside(tmp_path, caplog):
    def answers(call, events):
        bad = [event["n"] for event in events if event["n"] in (3, 7)]
        if bad:
            raise Refused(f"{bad} is bad", certain=True)

    rows = Rows(answers)
    lane = lane_of(tmp_path, rows)
    lane.append([{"n": n} for n in range(10)])
    assert arrived(lane)
    assert sorted(rows.rows) == [0, 1, 2, 4, 5, 6, 8, 9]
    kept = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [event["n"] for event in kept] == [3, 7]
    assert caplog.text.count("left out") == 1


def test_a_doubtful_no_is_asked_again_before_it_is_believed(tmp_path):
    def answers(call, events):
        if call < lane_module.PATIENCE:
            raise Refused("connection already closed", certain=False)

    rows = Rows(answers)
    lane = lane_of(tmp_path, rows)
    lane.append([{"n": 0}])
    assert arrived(lane)
    assert list(rows.rows) == [0]
    assert not (tmp_path / "refused.jsonl").exists()


def test_an_error_that_nobody_foresaw_is_an_outage(tmp_path):
    def answers(call, events):
        if call == 1:
            raise ZeroDivisionError

    rows = Rows(answers)
    lane = lane_of(tmp_path, rows)
    lane.append([{"n": 0}])
    assert arrived(lane)
    assert list(rows.rows) == [0]


def test_closing_ends_the_thread_and_keeps_the_rest(tmp_path):
    rows = Rows(lambda call, events: (_ for _ in ()).throw(Outage("away")))
    lane = lane_of(tmp_path, rows)
    lane.append([{"n": 0}])
    lane.close()
    assert not [thread for thread in threading.enumerate() if thread.name == f"tracking-{tmp_path.name}"]
    assert Spool(tmp_path).read(5)[0] == [{"n": 0}]
