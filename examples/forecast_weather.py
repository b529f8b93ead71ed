"""The highest temperature of each of the next seven days in Seattle, from the weather of the last thirty.

Four years of daily weather (NOAA) come with the package vega_datasets. A GRU learns from 2012 to 2014 and is tested on
2015. What it has to beat: *persistence*, every day will be like today; the *season*, a smooth curve through the three
years; and *fading*, the season and what is left of today's distance from it after so many days, a straight line's best.

What you will see: the root of the mean squared error in degrees for each day ahead, by how much the GRU is better, and
its forecasts through a spring as a picture. Most of what the weather of a place tells about its next week is in the
season and in today: no network that sees only this place gets far ahead of *fading*.
"""

import csv
from importlib.resources import files
from pathlib import Path

import numpy as np
from commandline import progress, run

import tinygrad_rnn as tg
from tinygrad_rnn.see.curve import curve

LEARNED, PAST, AHEAD = 1096, 30, 7  # days: from 2012 to 2014; that are read; that are forecast


class Forecaster(tg.nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        self.gru, self.head = tg.nn.GRU(inputs, hidden), tg.nn.Linear(hidden, AHEAD)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        """x (T, N, I) -> (N, AHEAD)."""
        output, _ = self.gru(x)
        return self.head(output[-1])


def weather() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The highest temperature of each day, (days), what the season makes of it, and what is read, (days, 6)."""
    with files("vega_datasets").joinpath("_data", "seattle-weather.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = ("temp_max", "temp_min", "precipitation", "wind")
    highest, lowest, rain, wind = np.array([[float(row[name]) for row in rows] for name in names])
    angle = 2 * np.pi * np.arange(len(rows)) / 365.25
    waves = np.stack([np.ones_like(angle), *[f(k * angle) for k in (1, 2) for f in (np.sin, np.cos)]], axis=1)
    season = waves @ np.linalg.lstsq(waves[:LEARNED], highest[:LEARNED], rcond=None)[0]
    read = np.stack([highest - season, lowest, np.log1p(rain), wind, waves[:, 1], waves[:, 2]], axis=1)
    read = (read - read[:LEARNED].mean(axis=0)) / read[:LEARNED].std(axis=0)
    return highest, season, read.astype(np.float32)


def main(
    *, hidden: int = 16, epochs: int = 6, lr: float = 3e-3, seed: int = 0, out: Path = Path(".")
) -> dict[str, np.ndarray]:  # fmt: skip
    """Returns for each way to forecast its error for each day ahead, in degrees, (7)."""
    tg.seed(seed)
    rng = np.random.default_rng(seed)
    highest, season, read = weather()
    away = highest - season
    spread, before = away[:LEARNED].std(), away[: LEARNED - AHEAD]
    fading = [before @ away[k : k + len(before)] / (before @ before) for k in range(1, 1 + AHEAD)]
    today = np.arange(PAST - 1, len(highest) - AHEAD)  # the days on which a forecast is made
    past, ahead = today[:, None] + np.arange(1 - PAST, 1), today[:, None] + np.arange(1, 1 + AHEAD)
    known, unseen = np.flatnonzero(ahead[:, -1] < LEARNED), today >= LEARNED - 1

    x, y = read[past].swapaxes(0, 1), (away[ahead] / spread).astype(np.float32)
    model = Forecaster(x.shape[-1], hidden)
    optimizer = tg.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    for _ in progress(epochs, "learning"):
        for chosen in np.array_split(rng.permutation(known), len(known) // 32):
            loss = tg.nn.mse(model(tg.tensor(x[:, chosen])), tg.tensor(y[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    with tg.no_grad():
        forecasts = {
            "persistence": np.repeat(highest[today][:, None], AHEAD, axis=1),
            "season": season[ahead],
            "fading": season[ahead] + away[today][:, None] * fading,
            "GRU": season[ahead] + spread * model(tg.tensor(x)).numpy(),
        }
    errors = {name: np.sqrt(((made - highest[ahead])[unseen] ** 2).mean(axis=0)) for name, made in forecasts.items()}
    for name, error in errors.items():
        better = "" if name == "GRU" else f", the GRU is better by {1 - errors['GRU'].mean() / error.mean():.1%}"
        print(f"{name:<12}{' '.join(f'{degrees:5.2f}' for degrees in error)}   mean {error.mean():.2f} °C{better}")

    weeks = np.arange(LEARNED + 60, LEARNED + 120, AHEAD)  # their first days
    drawn = {"measured": [(day - LEARNED, highest[day]) for day in range(weeks[0], weeks[-1])]}
    for name in ("GRU", "persistence"):  # what is no number, the end of each week, breaks the line
        made = [[*enumerate(forecasts[name][day - PAST], day - LEARNED), (0, np.nan)] for day in weeks[:-1]]
        drawn[name] = [point for week in made for point in week]
    picture = out / "weather.svg"
    picture.write_text(curve(drawn, title="Weeks of 2015, each forecast on its eve", x="day", y="°C"), "utf-8")
    print(f"{picture} shows {len(weeks) - 1} weeks")
    return errors


if __name__ == "__main__":
    run(main)
