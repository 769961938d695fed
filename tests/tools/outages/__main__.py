"""Play the matrix on a local AWS of its own and print it; the exit code says whether every cell ended as it must."""

import sys
import tempfile
from pathlib import Path

from tools.local_aws.running import local_aws
from tools.outages.cells import EXPECTED
from tools.outages.matrix import Matrix


def main() -> int:
    """Play and print."""
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder)) as aws:
        matrix = Matrix(aws, Path(folder))
        matrix.play()
    print(matrix.table())
    others = {cell: str(seen.course) for cell, seen in matrix.results.items() if seen.course != EXPECTED[cell[0]][cell[1]]}
    print(others or "each ended as it must")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
