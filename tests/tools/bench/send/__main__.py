"""Measure sending against the alternatives, and write `docs/benchmarks.md` with its plots."""

import os
import tempfile
from pathlib import Path

from tools.bench.send.measure import OVER, SEEN, measure
from tools.bench.send.report import draw, goals, page
from tools.bench.send.seed import seed
from tools.bench.send.stage import HERE, staged
from tools.bench.send.workload import TENANTS, Tenant
from tools.local_aws.server import ROOT

PAGE, PICTURE = ROOT / "docs/benchmarks.md", ROOT / "docs/benchmarks.png"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, staged(Path(folder)) as stage:
        os.environ.update(stage.environment)
        seed([Tenant(n) for n in range(max(TENANTS + SEEN, OVER))])
        results = measure(stage, Path(folder) / "packages")
    PAGE.write_text(page(results, (HERE / "page.md").read_text(encoding="utf-8")), encoding="utf-8")
    draw(results, PICTURE)
    print(goals(results.rows))
    print(f"written to {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
