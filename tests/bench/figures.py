# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of measured values: medians, centiles, and the one table."""

import statistics

from spaces import note


def median(values):
    return statistics.median(values) if values else float("nan")


def centile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def show(value):
    if isinstance(value, str):
        return value
    if value != value:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Table:
    def __init__(self):
        self.lines = []

    def section(self, title, *columns):
        self.lines.append(None)
        self.lines.append((title, *columns))
        note(title)

    def row(self, title, *values):
        self.lines.append(("  " + title, *(show(value) for value in values)))

    def text(self):
        rows = [line for line in self.lines if line]
        first = max(len(row[0]) for row in rows)
        width = max(len(cell) for row in rows for cell in row[1:])
        return "\n".join(
            (row[0].ljust(first) + "".join("  " + cell.rjust(width) for cell in row[1:])) if row else ""
            for row in self.lines)


def turns(options, *measurements):
    """The figures of each, measured in turns."""
    figures = tuple([] for _ in measurements)
    for _ in range(options.turns):
        for measure, into in zip(measurements, figures):
            into.append(measure())
    return figures


def rounds(count, *measurements):
    """The same in `count` rounds, every other one backwards: what drifts meanwhile weighs on all of them alike."""
    figures = tuple([] for _ in measurements)
    for i in range(count):
        one_round = list(zip(measurements, figures))
        for measure, into in reversed(one_round) if i % 2 else one_round:
            into.append(measure())
    return figures
