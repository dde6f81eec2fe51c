"""The catalogue over logs that others have published: each explained as its own document explains it.

`python -m tests.launcher.test_error_excerpts` prints the table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from launcher.catalogue import catalogue
from launcher.explanation import explain
from launcher.log_scan import scan_blocks

EXCERPTS = Path(__file__).parents[3] / "shared" / "ascend" / "samples" / "log_excerpts"
EXPECTED = yaml.safe_load(Path(__file__).with_name("error_excerpts.yaml").read_text())

pytestmark = pytest.mark.skipif(not EXCERPTS.is_dir(), reason=f"the collected logs are not at {EXCERPTS}")


def collected():
    """(expected, text) of every excerpt."""
    for block in json.loads((EXCERPTS / "log_excerpts.json").read_text()):
        document = f"{block['repo'].replace('+', '/')} {Path(block['path']).name}:{block['line']}"
        yield _expected("excerpts", lambda known, document=document: known == document), block["text"]
    sections = re.split(r"^## ", (EXCERPTS / "issue_excerpts.md").read_text(), flags=re.MULTILINE)[1:]
    for heading, text in (section.split("\n", 1) for section in sections):
        yield _expected("issues", heading.startswith), text


def _expected(group, is_it):
    return next(entry for entry in EXPECTED[group] if is_it(entry["document"]))


def explained(text):
    first = explain([scan_blocks("train.log", [text.encode()], catalogue())]).first
    return None if first is None else first.error.signature


def test_all_are_explained_as_their_documents_do():
    wrong = {
        expected["document"]: (getattr(explained(text), "name", None), expected["error"])
        for expected, text in collected()
        if getattr(explained(text), "name", None) != expected["error"]
    }
    assert wrong == {}


def test_every_expectation_has_its_excerpt():
    seen = [expected["document"] for expected, _ in collected()]
    assert sorted(seen) == sorted(entry["document"] for group in EXPECTED.values() for entry in group)


def print_table():
    """Each excerpt with our cause and its document's."""
    rows = [(expected, explained(text)) for expected, text in collected()]
    for expected, signature in rows:
        mark = "" if signature and signature.name == expected["error"] else " WRONG"
        print(f"{expected['document']}{mark}")
        print(f"    ours      {signature and f'{signature.name}: {signature.cause}'}")
        print(f"    document  {expected['cause']}")
    explained_count = sum(signature is not None for _, signature in rows)
    right = sum(signature is not None and signature.name == expected["error"] for expected, signature in rows)
    print(f"{explained_count} of {len(rows)} explained, {explained_count - right} of them wrongly")


if __name__ == "__main__":
    print_table()
