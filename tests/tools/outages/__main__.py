"""Run the matrix on its own local AWS and print it; exit with 1 if a cell ended otherwise than expected."""

import sys
import tempfile
from pathlib import Path

from tools.local_aws.running import local_aws
from tools.outages.cells import EXPECTED
from tools.outages.matrix import Matrix


def main() -> int:
    """Run and print."""
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder)) as aws:
        matrix = Matrix(aws, Path(folder))
        matrix.run()
    print(matrix.table())
    others = {cell: str(seen.course) for cell, seen in matrix.results.items() if seen.course != EXPECTED[cell[0]][cell[1]]}
    print(others or "every cell ended as expected")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
