#!/usr/bin/env python3
"""Makes the table (standard output) and the charts (an SVG file) of docs/SEARCH.md from what scripts/bench-search.sh prints:

    search_chart.py SVG CSV...
"""

import csv
import math
import sys
from xml.sax.saxutils import escape

# Question of the chart, its unit, and which rows of the CSV files answer it.
CHARTS = [
    ("How long does an equality search take?", "us", ["equality"]),
    ("How long do 100 hits by prefix or range take?", "us", ["prefix, 100 hits", "range, 100 hits"]),
    ("How fast are rows inserted, with their index?", "TPS", ["insert"]),
    ("How much CPU time of all processes does a LIKE over 1,000,000 rows take, without an index?", "us",
     [f"LIKE without an index, {workers} workers: CPU of all" for workers in range(3)]),
    ("How many bytes of index does a row take?", "bytes", ["index bytes a row"]),
]
COLORS = {"plaintext": "#888888", "pgcrypto digest": "#c08030"}
LEFT, BAR, WIDTH, CHART_WIDTH = 330, 18, 420, 860


def label(amount, unit):
    """An amount with a unit that fits its size."""
    if unit != "us":
        return f"{amount:,.1f}" if amount < 100 else f"{amount:,.0f}"
    for limit, scale, name in [(1e3, 1, "us"), (1e6, 1e3, "ms"), (math.inf, 1e6, "s")]:
        if amount < limit:
            return f"{amount / scale:.3g} {name}"
    raise AssertionError


def chart(title, unit, rows, top):
    """Bars on a logarithmic axis; returns their SVG and height."""
    amounts = [float(row["amount"]) for row in rows]
    low = math.floor(math.log10(min(amounts)) - 0.3)
    high = math.ceil(math.log10(max(amounts)) + 0.1)
    scale = WIDTH / (high - low)
    height = 44 + BAR * len(rows) + 26
    bottom = top + 34 + BAR * len(rows)
    svg = [f'<text x="12" y="{top + 20}" class="title">{escape(title)}</text>']
    for power in range(low, high + 1):
        x = LEFT + (power - low) * scale
        svg.append(f'<line x1="{x:.1f}" y1="{top + 30}" x2="{x:.1f}" y2="{bottom}" stroke="#dddddd"/>')
        svg.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle" class="axis">{escape(label(10.0 ** power, unit))}</text>')
    for number, (row, amount) in enumerate(zip(rows, amounts)):
        y = top + 34 + BAR * number
        what = row["contender"] if len({row["question"] for row in rows}) == 1 else f'{row["question"]}: {row["contender"]}'
        name = f'{what} ({int(row["rows"]) // 1000000}M rows)'.replace("LIKE without an index, ", "").replace(": CPU of all", "")
        bar = (math.log10(amount) - low) * scale
        svg.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        color = COLORS.get(row["contender"], "#2060a0")
        svg.append(f'<rect x="{LEFT}" y="{y + 2}" width="{bar:.1f}" height="{BAR - 5}" fill="{color}"/>')
        svg.append(f'<text x="{LEFT + bar + 5:.1f}" y="{y + 12}">{escape(label(amount, unit))}</text>')
    return "\n".join(svg), height


def main():
    svg_path, *csv_paths = sys.argv[1:]
    rows = [row for path in csv_paths for row in csv.DictReader(open(path, encoding="utf-8"))]
    print("| rows | question | contender | median | of the first |\n|---|---|---|---|---|")
    for row in rows:
        print(f'| {int(row["rows"]):,} | {row["question"]} | {row["contender"]} | {label(float(row["amount"]), row["unit"])}'
              f' {"" if row["unit"] == "us" else row["unit"]} | {float(row["of_the_first"]):.2f} |')
    top, parts = 8, []
    for title, unit, questions in CHARTS:
        chosen = [row for row in rows if row["question"] in questions and row["unit"] == unit]
        if chosen:
            part, height = chart(title, unit, chosen, top)
            parts.append(part)
            top += height
    style = "text { font: 12px sans-serif; fill: #222222 } .title { font-weight: bold; font-size: 14px } .axis { fill: #777777; font-size: 10px }"
    with open(svg_path, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{CHART_WIDTH}" height="{top}" viewBox="0 0 {CHART_WIDTH} {top}">\n'
                   f'<style>{style}</style>\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


if __name__ == "__main__":
    main()
