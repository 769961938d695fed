"""A storm of about a minute: real SendFunctions, killed at random, on wires that fail."""

import pytest

from tools.local_aws.running import LocalAws
from tools.storm.storm import Plan, Storm


def test_in_a_storm_nothing_is_lost_and_nothing_goes_out_twice(aws: LocalAws, capsys: pytest.CaptureFixture[str]) -> None:
    """500 requests: each has an end, SES accepted none more often than its caller allows, and no end belies what SES knows, or tells."""
    report = Storm(aws, Plan(requests=500, kills=30, told=2, deadly=0.5, speed=4, hidden=5, patience=600)).run()
    with capsys.disabled():
        print(f"\n{report.table()}")
    assert report.wrongs() == {}
    assert report.deaths.killed >= report.plan.kills
    assert report.faults >= 0.05 * report.calls
