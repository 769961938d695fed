"""The full storm: at the pace of real time, and long enough for a thousand deaths."""

from pathlib import Path

import pytest

from tools.local_aws.running import local_aws
from tools.storm.storm import Plan, Storm


def test_ten_thousand_requests_and_a_thousand_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None is lost, none goes out twice, none ends wrongly, and `unknown` only where a death or a fault hit it."""
    with local_aws(tmp_path) as aws:
        report = Storm(aws, Plan(requests=10_000, kills=1_000, told=2, deadly=0.5)).run()
    with capsys.disabled():
        print(f"\n{report.table()}")
    assert report.wrongs() == {}
    told, untold = report.verdict.told, report.verdict.untold
    assert told.resent * untold.requests < untold.resent * told.requests
    assert report.deaths.killed >= 1_000
    assert report.faults >= 0.05 * report.calls
