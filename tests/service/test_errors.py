"""The exception → status table."""

import pickle

import pytest

from models.errors import BundleError, ComputeError, InvalidInput, TooLarge
from service.errors import Broken, DeadlinePassed, Draining, NotReady, Overloaded, Retryable, ServiceError, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput("top_k is 0", pointer="/parameters/top_k"), 422),
        (TooLarge("too long", pointer="/inputs"), 413),
        (Overloaded("full", 2), 429),
        (Draining("going", 1), 503),
        (NotReady("coming", 1), 503),
        (DeadlinePassed("late"), 504),
        (ComputeError("failed"), 500),
        (BundleError("broken"), 500),
        (ZeroDivisionError(), 500),
    ],
)
def test_every_error_has_one_status(error: Exception, status: int) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize(
    "error", [Overloaded("full", 7), Draining("going", 2), NotReady("coming", 1), Broken("lost", 15)]
)
def test_an_error_crosses_a_process_boundary_whole(error: Retryable) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.detail, copy.retry_after_s) == (error.detail, error.detail, error.retry_after_s)


def test_every_service_error_is_counted_under_its_own_reason() -> None:
    reasons = [kind.reason for kind in (Overloaded, Draining, NotReady, Broken, DeadlinePassed)]
    assert len(set(reasons)) == len(reasons)
    assert issubclass(Overloaded, ServiceError)
    assert isinstance(pickle.loads(pickle.dumps(DeadlinePassed("late"))), DeadlinePassed)
