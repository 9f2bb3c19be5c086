"""Compares the blocks of pages that show a file with the file: `<!-- file PATH -->` stands above such a block. UPDATE_EXPECTED=1 writes them."""

import os
import re
import sys

from pages import ROOT, pages

SHOWN = re.compile(r"(<!-- file (\S+) -->\n```[a-z]*\n)(.*?)(^```$)", re.DOTALL | re.MULTILINE)


def main():
    passed, wrong = 0, []
    for page in pages():
        path = ROOT / page
        text = path.read_text()
        wanted = SHOWN.sub(lambda m: m[1] + (ROOT / m[2]).read_text() + m[4], text)
        if wanted != text and os.environ.get("UPDATE_EXPECTED"):
            path.write_text(wanted)
        elif wanted != text:
            wrong.append(page)
        passed += len(SHOWN.findall(text))
    # A client without a page, or a page without its example.
    examples = {str(p.relative_to(ROOT)) for p in ROOT.glob("examples/clients/**/*") if re.match("(with_.*|Jdbc|WithHibernate)[.]", p.name)}
    shown = {m[1] for page in (ROOT / "docs/guide/clients").glob("*.md") for m in SHOWN.findall(page.read_text())}
    for page in wrong:
        print(f"{page}: its block is not the file that it shows: UPDATE_EXPECTED=1 make test-docs")
    for example in sorted(examples - shown):
        print(f"{example} is on no page of docs/guide/clients")
    failed = len(wrong) + len(examples - shown)
    print(f"files: {passed - len(wrong)} passed, {failed} failed")
    sys.exit(failed > 0)


main()
