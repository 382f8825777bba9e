"""Nobody is lost or started twice, caps hold at every moment, and priority decides among those whom the caps let through."""

from hypothesis import given
from hypothesis import strategies as st

from dpscale.finetune.queue import PerformerQueue, Waiting


def test_priority_then_order_of_arrival():
    waiting = [Waiting("a", "x", 0), Waiting("b", "x", 5), Waiting("c", "y", 5), Waiting("d", "y", -1)]
    queue = PerformerQueue(waiting, 4, None)
    assert [queue.next() for _ in range(5)] == ["b", "c", "a", "d", None]
    assert queue.exhausted


def test_a_tenant_at_its_cap_lets_others_pass_and_goes_on_when_one_ends():
    queue = PerformerQueue([Waiting("a", "x", 9), Waiting("b", "x", 8), Waiting("c", "y", 0)], 3, 1)
    assert [queue.next() for _ in range(3)] == ["a", "c", None]
    assert not queue.exhausted
    queue.done("c")
    assert queue.next() is None
    queue.done("a")
    assert queue.next() == "b"


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(-3, 3)), max_size=12),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(1, 3)),
    st.randoms(use_true_random=False),
)
def test_everybody_trains_once_within_the_caps(people, most, most_of_tenant, random):
    waiting = [Waiting(f"p{n}", tenant, priority) for n, (tenant, priority) in enumerate(people)]
    tenants = {one.name: one.tenant for one in waiting}
    queue, running, started = PerformerQueue(waiting, most, most_of_tenant), [], []
    while running or not queue.exhausted:
        name = queue.next()
        if name is not None:
            running.append(name)
            started.append(name)
            assert len(running) <= most
            assert most_of_tenant is None or sum(tenants[r] == tenants[name] for r in running) <= most_of_tenant
        else:
            assert running, "held back by nobody"
            queue.done(running.pop(random.randrange(len(running))))
    assert sorted(started) == sorted(tenants)
