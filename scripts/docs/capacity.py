"""Compares the tables of docs/guide/capacity.md and aws.md with the model that they state; UPDATE_EXPECTED=1 writes them anew."""

import os
import re
import sys

from pages import ROOT

PAGES = ["docs/guide/capacity.md", "docs/guide/aws.md"]
# A refresh is due at 85 to 92 % of cache_ttl, of which the broker has the answer for all sessions.
REFRESHED_AT = 0.85
USD = 0.03 / 10_000
HOURS = 730
DAY = 86_400


def decrypts(opening_nodes, sealing_nodes, contexts, days_read, cache_ttl=900, dek_max_age=DAY):
    """Decrypts an hour of a cluster: each node that opens values asks for each data key in use."""
    data_keys = sealing_nodes * contexts * max(1, days_read * DAY / dek_max_age)
    return data_keys, opening_nodes * data_keys * 3600 / (REFRESHED_AT * cache_ttl)


def row(name, *arguments, **settings):
    data_keys, hourly = decrypts(*arguments, **settings)
    return f"| {name} | {data_keys:,.0f} | {hourly:,.0f} | {hourly / 3600:,.1f} | {hourly * HOURS * USD:,.0f} |"


def servers(number):
    """Servers that each seal and open, by data keys in use: calls and USD a month, and calls a second if that is one or more."""
    cells = []
    for data_keys in (1, 30, 365):
        _, hourly = decrypts(number, 1, 1, data_keys)
        calls = hourly * HOURS + number * HOURS / 24
        second = f" ({hourly / 3600:,.0f} calls/s)" if hourly >= 3600 else ""
        cells.append(f"{calls:,.0f} calls, {calls * USD:,.2f} USD{second}")
    return f"| {number:,} | {' | '.join(cells)} |"


def tables():
    head = "| nodes | data keys in use | Decrypts an hour | a second | USD a month |\n|---|---:|---:|---:|---:|"
    few = [row(f"{n:,} workers, 1 coordinator seals", n, 1, 1, 30) for n in (2, 10, 100, 1_000, 5_000)]
    all_seal = [row(f"{n:,} workers, all seal", n, n, 1, 30) for n in (2, 10, 100, 1_000)]
    hundred = [
        row("as above: 100 workers, 1 seals", 100, 1, 1, 30),
        row("`cache_ttl` of 1 hour", 100, 1, 1, 30, cache_ttl=3_600),
        row("`dek_max_age` of 7 days", 100, 1, 1, 30, dek_max_age=7 * DAY),
        row("only today's values are read", 100, 1, 1, 1),
        row("a year's values are read", 100, 1, 1, 365),
        row("100 encryption contexts", 100, 1, 100, 30),
    ]
    return {
        "nodes": "\n".join([head, *few, *all_seal]),
        "settings": "\n".join([head, *hundred]),
        "servers": "\n".join(["| servers | 1 data key in use | 30 | 365 |\n|---|---|---|---|", *map(servers, (1, 10, 100, 1_000))]),
    }


def main():
    failed = 0
    for page in PAGES:
        path = ROOT / page
        text = wanted = path.read_text()
        for name, table in tables().items():
            wanted = re.sub(rf"(<!-- table {name} -->\n).*?(\n<!-- end -->)", lambda m, t=table: m[1] + t + m[2], wanted, flags=re.DOTALL)
        if wanted != text and os.environ.get("UPDATE_EXPECTED"):
            path.write_text(wanted)
        elif wanted != text:
            failed += 1
            print(f"{page}: its tables are not what the model gives: UPDATE_EXPECTED=1 make test-docs")
    print(f"capacity: {len(PAGES) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
