"""Run it alone: `python -m benchmarks.gate [--quick | --full]`."""

from benchmarks.gate import main

if __name__ == "__main__":
    main()
