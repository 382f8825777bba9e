"""What fits passes; what can never fit is refused with the numbers."""

import pytest

from dpscale.data.types import InputError
from dpscale.finetune.placement import check_placeable, num_places


@pytest.mark.parametrize(
    ("worker", "nodes", "places"),
    [
        ({"CPU": 1}, [{"CPU": 2}], 2),
        ({"CPU": 1, "GPU": 1}, [{"CPU": 8, "GPU": 2}, {"CPU": 1, "GPU": 4}], 3),
        ({"CPU": 0.1}, [{"CPU": 0.3}], 3),
        ({"CPU": 1, "GPU": 0}, [{"CPU": 1}], 1),
    ],
)
def test_as_many_as_fit_are_let_through_and_one_more_is_not(worker, nodes, places):
    assert num_places(worker, nodes) == places
    assert check_placeable(worker, places, nodes) is None
    with pytest.raises(InputError, match=f"room for {places} of them"):
        check_placeable(worker, places + 1, nodes)


@pytest.mark.parametrize(
    ("worker", "num_workers", "nodes", "message"),
    [
        ({"CPU": 1}, 3, [{"CPU": 2}], r"num_workers = 3: each worker needs 1 CPU on one node, .* room for 2 of them \(nodes: 2 CPU\)"),
        ({"CPU": 1, "GPU": 1}, 1, [{"CPU": 8}], r"needs 1 CPU and 1 GPU on one node, .* room for 0 of them \(nodes: 8 CPU, 0 GPU\)"),
        ({"CPU": 2}, 1, [{"CPU": 1}, {"CPU": 1}], "room for 0 of them"),
        ({"CPU": 1}, 1, [], "nodes: no node"),
    ],
)
def test_what_can_never_fit(worker, num_workers, nodes, message):
    with pytest.raises(InputError, match=message):
        check_placeable(worker, num_workers, nodes)
