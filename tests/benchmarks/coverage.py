"""How often 95 % intervals hold a win rate: the table that docs/statistics.md quotes, 4,000 simulated runs a cell.

Example:
  python tests/benchmarks/coverage.py
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "scripts")]
from test_statistics import cover_win_rates  # noqa: E402

RATES, SIZES = (0.5, 0.6, 0.7, 0.8), (20, 50, 200)


def main():
    lines = {}
    for size in SIZES:
        for rate in RATES:
            for name, share in cover_win_rates(size, rate, resamples=1999).items():
                lines.setdefault((size, name), []).append(f"{100 * share:.1f} %")
    print("| prompts | data |", *(f" {rate} |" for rate in RATES), sep="")
    print("|---" * (2 + len(RATES)), "|", sep="")
    for (size, name), shares in lines.items():
        print(f"| {size} | {name} |", *(f" {share} |" for share in shares), sep="")


if __name__ == "__main__":
    main()
