"""The delivery path against the broker of the specification, and the same with faults planted, which must be found."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.edge.delivery_model import DeliveryModel
from tests.edge.delivery_mutants import MUTANTS
from tests.soak.model import explore, find


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Hundreds of connections would be logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_every_frame_is_acknowledged_once_in_order_and_only_when_it_is_safe() -> None:
    explore(4, 120, shrink=True)


@pytest.mark.parametrize("fault", MUTANTS)
def test_planted_fault_is_found(fault: str) -> None:
    assert find(fault, 7, 1000)


def test_worker_without_room_subscribes_all_the_same_when_the_broker_has_forgotten_it() -> None:
    model = DeliveryModel()
    model.begin(2, "every")
    model.cameras_publish("a", 2, 0, 0)
    model.cameras_publish("a", 2, 3, 0)
    model.disrupt("worker killed")
    model.cameras_publish("a", 1, 3, 0)
    model.disrupt("broker forgets")
    model.cameras_publish("a", 1, 0, 0)
    model.teardown()
