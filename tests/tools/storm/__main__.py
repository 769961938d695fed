"""Run one storm on a local AWS of its own and print its figures; the exit code says whether every promise was kept."""

import argparse
import sys
import tempfile
from pathlib import Path

from tools.local_aws.running import local_aws
from tools.storm.storm import Plan, Storm


def main() -> int:
    """Read the arguments and let it rage."""
    parser = argparse.ArgumentParser(prog="python -m tools.storm", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=1_000, help="at least (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--deadly", type=float, default=0.5, help="how likely a worker is killed in a batch (default: %(default)s)")
    parser.add_argument("--speed", type=float, default=1.0, help="how fast time passes for the records (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=15, help="visibility timeout in seconds (default: %(default)s)")
    parser.add_argument("--tenants", type=int, default=4)
    parser.add_argument("--told", type=int, default=2, help="tenants of them whose events come back from SES (default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder)) as aws:
        report = Storm(aws, Plan(**vars(given))).run()
    print(report.table())
    print(report.wrongs() or "nothing was lost, nothing went out twice, nothing ended wrongly")
    return 0 if report.verdict.is_clean and report.deaths.killed >= given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
