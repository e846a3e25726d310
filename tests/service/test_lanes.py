"""How much time explanations get beside answers, on a clock that the test turns."""

import pytest

from service.lanes import MOST_CREDIT_S, MOST_DEBT_S, QUIET_S, SHARE, Share

STEP_S = 0.004


def test_alone_they_never_wait() -> None:
    share = Share()
    for step in range(100):
        assert share.wait_s(step * STEP_S) == 0
        share.spent(step * STEP_S, (step + 1) * STEP_S)


@pytest.mark.parametrize("pass_s", [STEP_S, 0.5])
def test_beside_answers_they_get_their_share_however_long_a_pass_takes(pass_s: float) -> None:
    share, now, explained_s = Share(), 0.0, 0.0
    share.answering(now)
    answered_at = pass_s
    while now < 20:
        now += STEP_S
        if now >= answered_at:
            share.answered(now)
            share.answering(now)
            answered_at = now + pass_s
        if share.wait_s(now) == 0:
            began, now = now, now + 3 * STEP_S
            share.spent(began, now)
            explained_s += 3 * STEP_S
    assert explained_s / now <= SHARE + (MOST_CREDIT_S + 3 * STEP_S) / now
    assert explained_s / now >= 0.9 * SHARE


def test_they_go_on_when_answers_have_ended() -> None:
    share = Share()
    share.answering(0.0)
    share.answered(1.0)
    share.spent(1.0, 11.0)
    assert share.wait_s(1.0) == pytest.approx(QUIET_S)
    assert share.wait_s(1.0 + QUIET_S) == 0


def test_what_they_owe_has_a_bound() -> None:
    share = Share()
    share.answering(0.0)
    for _ in range(10):
        share.spent(0.0, 5.0)
    now = 5.0
    while (wait_s := share.wait_s(now)) > 0:
        now += max(wait_s, STEP_S)
    assert now - 5.0 == pytest.approx(MOST_DEBT_S / SHARE, rel=0.01)
