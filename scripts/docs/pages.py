"""The pages of the documentation, their SQL blocks, and psql on the server that PG* points to."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*$", re.DOTALL)


@dataclass
class Block:
    """A block of a page: its language, its text, the line that it begins in, and why it is not run (or None)."""

    language: str
    text: str
    line: int
    not_run: str | None
    indent: str


def pages():
    """Every page that a user reads, as paths below the root."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    return sorted(page.relative_to(ROOT) for page in found)


def blocks(page):
    """The fenced blocks of a page, in order. A line `<!-- not run: REASON -->` stands before one that cannot run."""
    text = (ROOT / page).read_text()
    found = []
    for match in re.finditer(r"^([ ]*)```([a-z]*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        indent, language, body = match.groups()
        before = text[: match.start()]
        reason = NOT_RUN.search(before)
        body = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        found.append(Block(language, body, before.count("\n") + 1, reason and reason[1], indent))
    return found


def psql(sql, database=None):
    """What psql prints for some SQL, without headers. Ends the program if it fails."""
    command = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", *(["-d", database] if database else [])]
    ran = subprocess.run(command, input=sql, text=True, capture_output=True)
    if ran.returncode:
        sys.exit(f"psql: {ran.stderr}")
    return ran.stdout.rstrip("\n")


def rows(query):
    """The rows of a query, as dictionaries. The library is loaded, so that its settings are there."""
    query = f"SELECT coalesce(json_agg(r), '[]') FROM ({query}) AS r"
    return json.loads(psql(f"LOAD 'envelope_pg';\n{query};"))
