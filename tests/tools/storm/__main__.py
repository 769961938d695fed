"""Run one storm on its own local AWS and print its figures; exit with 1 if a guarantee was violated."""

import argparse
import sys
import tempfile
from pathlib import Path

from tools.local_aws.running import local_aws
from tools.storm.storm import Plan, Storm


def main() -> int:
    """Parse the arguments and run the storm."""
    parser = argparse.ArgumentParser(prog="python -m tools.storm", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=1_000, help="at least (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kill-probability", type=float, default=0.5, help="per batch (default: %(default)s)")
    parser.add_argument("--speed", type=float, default=1.0, help="speed of the records' clock (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=15, help="visibility timeout in seconds (default: %(default)s)")
    parser.add_argument("--tenants", type=int, default=4)
    parser.add_argument("--with-feedback", type=int, default=2, help="of the tenants (default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder)) as aws:
        report = Storm(aws, Plan(**vars(given))).run()
    print(report.table())
    print(report.violations() or "nothing lost, nothing sent twice, no wrong end")
    return 0 if report.verdict.is_clean and report.terminations.killed >= given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
