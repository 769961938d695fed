"""The full storm: in real time, with a thousand kills."""

from pathlib import Path

import pytest

from tools.local_aws.running import local_aws
from tools.storm.storm import Plan, Storm


def test_ten_thousand_requests_and_a_thousand_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None is lost, sent twice or reported wrongly, and `unknown` only after a kill or a fault."""
    with local_aws(tmp_path) as aws:
        report = Storm(aws, Plan(requests=10_000, kills=1_000, with_feedback=2, kill_probability=0.5)).run()
    with capsys.disabled():
        print(f"\n{report.table()}")
    assert report.violations() == {}
    assert report.suppressed
    assert report.verdict.left_out
    with_feedback, without_feedback = report.verdict.with_feedback, report.verdict.without_feedback
    assert with_feedback.resent * without_feedback.requests < without_feedback.resent * with_feedback.requests
    assert report.terminations.killed >= 1_000
    assert report.faults >= 0.05 * report.calls
