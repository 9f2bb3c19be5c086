"""Runs the SQL blocks of pages, in order and in one session a page, as a reader would in `make psql-kms`.

examples.py [PAGE...]: README.md, docs/OPERATIONS.md, docs/SEARCH.md, docs/guide, docs/operate and docs/reference unless pages are
named. Each page has a database of its own, which begins as
`make psql-kms` gives it. A block fails if a statement of it does, unless the block after it, one without a language, shows the error.
Such a block is compared with what psql prints; `…` in it stands for anything. UPDATE_EXPECTED=1 writes those that differ anew.
"""

import os
import re
import subprocess
import sys

from pages import ROOT, blocks, psql

MARK = "-- block {} --"


def examples(page):
    """The SQL blocks of a page that run, each with the output that the page shows for it (or None)."""
    found = blocks(page)
    for number, block in enumerate(found):
        if block.language != "sql" or block.not_run:
            continue
        following = found[number + 1] if number + 1 < len(found) else None
        shown = None
        # Directly below: nothing but a blank line between them.
        if following and following.language == "" and following.line - block.line - block.text.count("\n") <= 3:
            shown = following.text
        yield block, shown


def tidy(text):
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()).strip("\n")


def fits(shown, printed):
    pattern = ".*?".join(re.escape(part) for part in tidy(shown).split("…"))
    return re.fullmatch(pattern, tidy(printed), re.DOTALL) is not None


def run(page, database):
    """Runs a page; returns how many blocks were right and a text for each that was not."""
    psql(f"CREATE DATABASE {database} TEMPLATE template_of_pages;"
         f"ALTER DATABASE {database} SET search_path = \"$user\", public, example;"
         f"ALTER DATABASE {database} SET client_min_messages = warning")
    todo = list(examples(page))
    script = "".join(f"\\echo '{MARK.format(number)}'\n{block.text}\n" for number, (block, _) in enumerate(todo))
    # Line by line, so that errors stand where they belong between the results.
    ran = subprocess.run(["stdbuf", "-oL", "psql", "-qX", "-P", "pager=off", "-d", database],
                         input=script, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    printed = re.split(r"^-- block \d+ --\n", ran.stdout, flags=re.MULTILINE)[1:]
    passed, failures = 0, []
    for number, (block, shown) in enumerate(todo):
        output = printed[number] if number < len(printed) else "psql ended before this block"
        if os.environ.get("UPDATE_EXPECTED") and shown is not None and (shown == "…\n" or not fits(shown, output)):
            path = ROOT / page
            path.write_text(path.read_text().replace(f"{block.text}```\n\n```\n{shown}```", f"{block.text}```\n\n```\n{tidy(output)}\n```"))
        if shown is None and re.search(r"^(psql:.*)?(ERROR|FATAL|WARNING):|^psql ended|^invalid command", output, re.MULTILINE):
            failures.append(f"{page}:{block.line}: this block fails:\n{output}")
        elif shown is not None and not fits(shown, output):
            failures.append(f"{page}:{block.line}: the page shows\n{shown}and psql prints\n{output}")
        else:
            passed += 1
    return passed, failures


def main():
    guides = [str(p.relative_to(ROOT)) for folder in ("guide", "operate", "reference") for p in sorted(ROOT.glob(f"docs/{folder}/*.md"))]
    chosen = sys.argv[1:] or ["README.md", "docs/OPERATIONS.md", "docs/SEARCH.md", *guides]
    psql("CREATE DATABASE template_of_pages TEMPLATE postgres", database="template1")
    passed, failures, skipped = 0, [], 0
    for page in chosen:
        right, wrong = run(page, "page_" + re.sub(r"\W", "_", re.sub("^docs/(guide/)?|[.]md$", "", page)).lower())
        passed += right
        failures += wrong
        skipped += sum(1 for block in blocks(page) if block.language == "sql" and block.not_run)
    for failure in failures:
        print(failure)
    print(f"examples: {passed} passed, {len(failures)} failed; {skipped} blocks are marked as not run, in {len(chosen)} pages")
    sys.exit(bool(failures))


main()
