"""Measure the suppression look-up of a batch of 100 messages: CPU, wall time and calls, with no list, a small one and a large one."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.bench.send.stage import staged

CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("no list", {"recipients": 1, "listed": 0}),
    ("10 suppressed, 1 recipient a message", {"recipients": 1, "listed": 10}),
    ("10 000 suppressed, 1 recipient a message", {"recipients": 1, "listed": 10_000}),
    ("1 000 000 suppressed, 1 recipient a message", {"recipients": 1, "listed": 1_000_000}),
    ("10 000 suppressed, 50 recipients a message", {"recipients": 50, "listed": 10_000}),
    ("1 000 000 suppressed, 50 recipients a message", {"recipients": 50, "listed": 1_000_000}),
)


def main() -> None:
    print("| a batch of 100 messages | calls | CPU per message | duration of the look-up |")
    print("| --- | --- | --- | --- |")
    with TemporaryDirectory() as folder, staged(Path(folder)) as stage:
        for name, options in CASES:
            figures = stage.run("suppressions.measure", "look_ups", package="tools.bench", **options)
            print(f"| {name} | {figures['calls']:.0f} | {1000 * figures['cpu']:.3f} ms | {1000 * figures['wall']:.0f} ms |")


if __name__ == "__main__":
    main()
