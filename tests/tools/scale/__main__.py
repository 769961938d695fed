"""Run one of the simulations, and print its table."""

import argparse
import sys

from tools.scale import keys

SIMULATIONS = {"keys": keys.main}


def main() -> int:
    """Read the arguments and simulate."""
    parser = argparse.ArgumentParser(prog="python -m tools.scale", description=__doc__)
    parser.add_argument("simulation", choices=SIMULATIONS)
    arguments, rest = parser.parse_known_args()
    SIMULATIONS[arguments.simulation](rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
