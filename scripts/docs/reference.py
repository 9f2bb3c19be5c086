"""docs/reference/functions.md, settings.md and views.md, made of the catalog and its comments.

Compares them with what is committed; UPDATE_EXPECTED=1 writes them.
"""

import os
import re
import sys

from pages import ROOT, rows

# The folders of sql/ in the order of the page, and their headings.
SECTIONS = {
    "values": "Values",
    "trigger": "Triggers and views",
    "search": "Search",
    "data_keys": "Data keys",
    "rotation": "Rotation and adoption",
    "inventory": "Inventory",
    "check": "Checks",
    "monitoring": "Monitoring",
    "named_keys": "Named keys",
    "local": "Local keys",
}
MADE = "<!-- Made from the catalog's comments by scripts/docs/reference.py: UPDATE_EXPECTED=1 make test-docs. Do not edit. -->"
UNITS = {"ms": "milliseconds", "s": "seconds", "kB": "kilobytes", "min": "minutes"}
CONTEXTS = {
    "sighup": "configuration file or `ALTER SYSTEM`, then a reload",
    "superuser": "superuser: also `SET`, `ALTER ROLE`, `ALTER DATABASE`",
    "user": "anybody",
    "postmaster": "configuration file, then a restart",
}


def escape(text):
    return (text or "").replace("|", "\\|").replace("\n", " ")


def folder(name, kind):
    """The folder of sql/ that makes an object."""
    pattern = re.compile(rf"CREATE (?:OR REPLACE )?{kind} @extschema@\.{name}\b")
    for directory in sorted((ROOT / "sql").iterdir()):
        if directory.name not in ("released", "upgrade") and directory.is_dir():
            for file in directory.glob("*.sql"):
                if pattern.search(file.read_text()):
                    return directory.name
    sys.exit(f"no file of sql/ makes {name}")


def who(roles):
    return "everybody" if "" in roles else ", ".join(f"`{role}`" for role in sorted(roles)) or "superusers"


def functions():
    found = rows("""
        SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS arguments, p.prokind AS kind,
               CASE WHEN p.prokind = 'p' THEN '' ELSE pg_get_function_result(p.oid) END AS result,
               CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END AS volatility,
               CASE p.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' ELSE 'UNSAFE' END AS parallel,
               obj_description(p.oid, 'pg_proc') AS comment,
               coalesce((SELECT json_agg(CASE WHEN a.grantee = 0 THEN '' ELSE a.grantee::regrole::text END)
                         FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
                         WHERE a.grantee <> p.proowner), '[]') AS roles
        FROM pg_depend AS d JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
        WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'envelope_pg')
            AND p.pronamespace <> 'envelope_internal'::regnamespace
        ORDER BY p.proname, p.pronargs, pg_get_function_arguments(p.oid)""")
    # One row for overloads that only add arguments at the end.
    merged = []
    for function in found:
        base = next((m for m in merged if m["name"] == function["name"] and m["result"] == function["result"]
                     and m["arguments"] and function["arguments"].startswith(m["arguments"] + ", ")), None)
        if base:
            more = function["arguments"][len(base["arguments"]) :]
            base["shown"] += f" [{more}"
            base["closing"] += "]"
            base["arguments"], base["comment"] = function["arguments"], function["comment"]
        else:
            merged.append(function | {"shown": function["arguments"], "closing": ""})
    text = [MADE, "# Functions", "",
            "An argument in brackets may be left out. A procedure is called with `CALL`, outside of a transaction block.",
            "Whoever is not in the last column cannot call it; superusers can. [settings.md](settings.md), [views.md](views.md) and",
            "[errors.md](errors.md) are the other pages of the reference.", ""]
    if not (ROOT / "docs/reference/errors.md").exists():
        text[4:6] = ["Whoever is not in the last column cannot call it; superusers can. [settings.md](settings.md) and [views.md](views.md) are",
                     "the other pages of the reference."]
    kinds = {"p": "PROCEDURE", "a": "AGGREGATE", "f": "FUNCTION"}
    for section, title in SECTIONS.items():
        rows_of = [f for f in merged if folder(f["name"], kinds[f["kind"]]) == section]
        if not rows_of:
            continue
        text += [f"## {title}", "", "| function | returns | what | label | may call |", "|---|---|---|---|---|"]
        for f in rows_of:
            label = "procedure" if f["kind"] == "p" else f"{f['volatility']}, PARALLEL {f['parallel']}"
            label = ("aggregate, " if f["kind"] == "a" else "") + label
            result = f["result"].replace("TABLE(", "rows of (")
            text.append(f"| `{f['name']}({f['shown']}{f['closing']})` | {'`' + escape(result) + '`' if result else ''} | "
                        f"{escape(f['comment'])} | {label} | {who(f['roles'])} |")
        text.append("")
    text += ["What these are made of is in the schema `envelope_internal`, and can change with each release: do not call it."]
    return text


def settings():
    text = [MADE, "# Settings", "",
            "`ALTER SYSTEM` knows a setting only in a session that has loaded the library: run `LOAD 'envelope_pg'` first. Ordinary roles can",
            "set none but those that say *anybody*.", ""]
    for setting in rows("""SELECT name, boot_val, unit, context, vartype, min_val, max_val, short_desc, extra_desc
                           FROM pg_settings WHERE name LIKE 'envelope\\_pg.%' ORDER BY name"""):
        value = setting["boot_val"]
        text += [f"## {setting['name']}", "", f"{setting['short_desc']} {setting['extra_desc']}", ""]
        facts = [{"string": "text", "bool": "boolean", "integer": "number"}[setting["vartype"]],
                 f"default `{value}`" if value else "default empty"]
        if setting["unit"]:
            facts[1] += f" {UNITS[setting['unit']]}"
        if setting["vartype"] == "integer":
            facts.append(f"at least {setting['min_val']}")
            if setting["max_val"] != "2147483647":
                facts.append(f"at most {setting['max_val']}")
        text += [f"{', '.join(facts)}. May be set by: {CONTEXTS[setting['context']]}.", ""]
    return text[:-1]


def views():
    text = [MADE, "# Views", ""]
    for view in rows("""
            SELECT c.relname AS name, obj_description(c.oid, 'pg_class') AS comment,
                   (SELECT json_agg(json_build_object('name', attname, 'type', format_type(atttypid, atttypmod),
                                                      'comment', col_description(c.oid, attnum)) ORDER BY attnum)
                    FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns,
                   coalesce((SELECT json_agg(CASE WHEN a.grantee = 0 THEN '' ELSE a.grantee::regrole::text END)
                             FROM aclexplode(c.relacl) AS a
                             WHERE a.grantee <> c.relowner AND privilege_type = 'SELECT'), '[]') AS roles
            FROM pg_depend AS d JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
            WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'envelope_pg')
                AND c.relkind = 'v' AND c.relnamespace <> 'envelope_internal'::regnamespace
            ORDER BY c.relname"""):
        text += [f"## {view['name']}", "", f"{view['comment']}.", "", f"May read it: {who(view['roles'])}.", ""]
        commented = any(column["comment"] for column in view["columns"])
        text += ["| column | type | |", "|---|---|---|"] if commented else ["| column | type |", "|---|---|"]
        for column in view["columns"]:
            row = f"| `{column['name']}` | {column['type']} |"
            text.append(f"{row} {escape(column['comment'])} |" if commented else row)
        text.append("")
    return text[:-1]


def main():
    passed, failed = 0, 0
    for name, make in {"functions": functions, "settings": settings, "views": views}.items():
        path = ROOT / "docs/reference" / f"{name}.md"
        made = "\n".join(make()) + "\n"
        if os.environ.get("UPDATE_EXPECTED"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(made)
        committed = path.read_text() if path.exists() else ""
        if made == committed:
            passed += 1
            continue
        failed += 1
        differing = next((line for line in made.splitlines() if line not in committed.splitlines()), "a line is gone")
        print(f"{path.relative_to(ROOT)} is not what the catalog says; UPDATE_EXPECTED=1 make test-docs writes it. First: {differing}")
    print(f"reference: {passed} passed, {failed} failed")
    sys.exit(bool(failed))


main()
