"""Rents: a number is asked for, and people say which one was right, or how good it was.

    python -m examples.prices

The flats are made up: a rent has a price by the square metre, which rises all the time, and each
flat is somewhat better or worse than what is known of it. Most landlords tell the rent that was
agreed in the end (a correction); one in five only rates the estimate. The estimate is compared with
what one would say without a model: the mean of the rents told so far.

To serve the same model, save the configuration as `loop.yaml` and run `online-learner up`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from statistics import fmean

from examples.scratch import scratch_loop

CONFIG = """
models:
  rent:
    task: regression
    # River's own names, joined as River joins them; the arguments are those of the last part.
    learner:
      use: "river:preprocessing.StandardScaler | linear_model.LinearRegression"
      intercept_lr: 0.1
    # Every step answers at once, as here the numbers are to be seen from the first one on. Leave
    # the line out, and new weights answer only when evidence says that they are better.
    promotion: {policy: "policies.promotion:Always"}
"""
GOOD = 50.0  # an estimate this near is worth five stars; each further step costs one


def flats(n: int, seed: int = 1) -> Iterator[tuple[dict[str, float], float]]:
    """Yield flats and their rents."""
    rng = random.Random(seed)
    for day in range(n):
        area, floor = rng.uniform(25.0, 120.0), float(rng.randint(0, 5))
        metro_km, year = rng.uniform(0.1, 3.0), float(rng.randint(1900, 2020))
        by_area = 11.0 + 4.0 * day / n
        rent = by_area * area + 15.0 * floor - 60.0 * metro_km + 0.8 * (year - 1960.0)
        flat = {"area": area, "floor": floor, "metro_km": metro_km, "year": year}
        yield flat, rent + rng.gauss(0.0, 40.0)


async def play(n: int) -> dict[str, float]:
    """Estimate each rent, say what was right, learn from it; return the mean errors."""
    told: list[float] = []
    errors: list[tuple[float, float]] = []
    async with scratch_loop(CONFIG) as loop:
        for i, (flat, rent) in enumerate(flats(n)):
            answer = await loop.predict("rent", flat)
            errors.append((abs(answer["output"] - rent), abs(fmean(told or [0.0]) - rent)))
            if i % 5:
                await loop.feedback(answer["prediction_id"], "correction", rent)
                told.append(rent)
            else:
                stars = max(1.0, 5.0 - abs(answer["output"] - rent) // GOOD)
                await loop.feedback(answer["prediction_id"], "rating", stars)
            await loop.turn("rent")
    late = errors[n // 2 :]
    return {
        "error of the model": fmean(error for error, _ in late),
        "error of the mean so far": fmean(error for _, error in late),
        "first error": fmean(error for error, _ in errors[:20]),
    }


def main(n: int = 600) -> dict[str, float]:
    """Play, and print the mean absolute errors over the second half."""
    found = asyncio.run(play(n))
    for name, error in found.items():
        print(f"{name:26} {error:8.1f}")
    return found


if __name__ == "__main__":
    main()
