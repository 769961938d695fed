"""A storm of about a minute: real SendFunctions, killed at random, with network faults."""

import pytest

from tools.local_aws.running import LocalAws
from tools.storm.storm import Plan, Storm


def test_in_a_storm_nothing_is_lost_and_nothing_is_sent_twice(aws: LocalAws, capsys: pytest.CaptureFixture[str]) -> None:
    """300 requests: each ends, SES accepts none more often than allowed, and no record contradicts SES's ledger or events."""
    report = Storm(aws, Plan(requests=300, kills=20, with_feedback=2, kill_probability=0.5, speed=4, hidden=5, drain_timeout=600)).run()
    with capsys.disabled():
        print(f"\n{report.table()}")
    assert report.violations() == {}
    assert report.suppressed
    assert report.verdict.left_out
    assert report.terminations.killed >= report.plan.kills
    assert report.faults >= 0.05 * report.calls
