"""Fails if a page names a function, view, setting, role, make target, file or heading that is not there."""

import re
import sys

from pages import ROOT, pages, rows

# Symbols of the library, which profiles show.
SYMBOLS = {"env_encrypt_text", "env_decrypt_text", "env_blind_index_text"}
# Pages about the past.
HISTORY = {"CHANGELOG.md"}
FOLDERS = "docs|scripts|sql|src|crates|tests|packaging|demo|bench|fuzz|examples"


def known():
    members = rows("""
        SELECT coalesce(p.proname, c.relname, t.typname) AS name, coalesce(pn.nspname, cn.nspname, tn.nspname) AS schema
        FROM pg_depend AS d
        LEFT JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
        LEFT JOIN pg_namespace AS pn ON pn.oid = p.pronamespace
        LEFT JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
        LEFT JOIN pg_namespace AS cn ON cn.oid = c.relnamespace
        LEFT JOIN pg_type AS t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid
        LEFT JOIN pg_namespace AS tn ON tn.oid = t.typnamespace
        WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'envelope_pg')""")
    settings = rows("SELECT name FROM pg_settings WHERE name LIKE 'envelope\\_pg.%'")
    roles = rows("SELECT rolname AS name FROM pg_roles WHERE rolname LIKE 'envelope\\_%'")
    return (
        {m["name"] for m in members if m["schema"] != "envelope_internal"},
        {m["name"] for m in members if m["schema"] == "envelope_internal"},
        {s["name"] for s in settings},
        {r["name"] for r in roles},
    )


def anchors(path):
    """The anchors of a page, made of its headings as code hosts do."""
    found = set()
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        name = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", name).replace(" ", "-"))
    return found


def main():
    public, internal, settings, roles = known()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    crates = {re.search(r'^name = "(.*)"', file.read_text(), re.MULTILINE)[1] for file in ROOT.glob("crates/*/Cargo.toml")}
    wrong, checked = [], 0
    pages_checked = [page for page in pages() if page.name not in HISTORY]
    for page in pages_checked:
        for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):

            def check(good, what, of=page, at=number):
                nonlocal checked
                checked += 1
                if not good:
                    wrong.append(f"{of}:{at}: {what} is not there")

            for name in re.findall(r"(?<![\w.$/-])env_[a-z0-9_]+\b(?!\*|_\*)", line):
                check(name in public or name in SYMBOLS,
                      f"the function or view {name}")
            for name in re.findall(r"\benvelope_internal\.([a-z0-9_]+)", line):
                check(name in internal, f"envelope_internal.{name}")
            for name in re.findall(r"(?<![\w/])envelope_pg\.([a-z_]+[a-z])\b(?![/*])", line):
                check(f"envelope_pg.{name}" in settings or name in {"so", "control", "sock", "lock", "launch", "shared", "md"},
                      f"the setting envelope_pg.{name}")
            for name in re.findall(r"(?<![\w/.-])envelope_(?!pg|internal)([a-z]+)\b", line):
                check(f"envelope_{name}" in roles or f"envelope_{name}" in crates, f"the role or crate envelope_{name}")
            for name in re.findall(r"`make ([a-z][a-z-]+)", line):
                check(name in targets, f"make {name}")
            for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", line):
                # A path within a crate will do, and NAME or A--B stand for a name.
                check(re.search("NAME|A--B", path) or (ROOT / path).exists() or list(ROOT.glob(f"crates/*/{path}")),
                      f"the file {path}")
            for link in re.findall(r"\]\(([^)\s]+)\)", line):
                if re.match(r"[a-z]+:", link):
                    continue
                path, _, anchor = link.partition("#")
                target = (ROOT / page).parent / path if path else ROOT / page
                check(target.exists(), f"the file {link}")
                if anchor and target.exists() and target.suffix == ".md":
                    check(anchor in anchors(target), f"the heading {link}")
    for line in wrong:
        print(line)
    faulty = {line.split(":")[0] for line in wrong}
    print(f"names: {len(pages_checked) - len(faulty)} passed, {len(faulty)} failed; {checked} names in these pages")
    sys.exit(bool(wrong))


main()
