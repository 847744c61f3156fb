"""How fast the machine is at this moment: `python -m tests.calibration` prints processor seconds.

Ten fixed seeds of the simulation, in one process. The same work takes 1.4 times as much processor
time beside busy neighbours, so a budget is only worth something in proportion to this.
"""

import time

from tests.simulation import runner

SEEDS = range(10)


def main() -> None:
    runner.run(0)  # what is imported and compiled on first use is not counted
    begin = time.process_time()
    failed = [seed for seed in SEEDS if runner.run(seed).failure]
    seconds = time.process_time() - begin
    print(f"{seconds:.3f}")
    if failed:
        raise SystemExit(f"seeds {failed} fail")


if __name__ == "__main__":
    main()
