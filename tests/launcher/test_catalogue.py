"""The catalogue: every entry whole, every family recognised, nothing seen in what healthy jobs write."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from launcher import cann
from launcher.catalogue import FILE, Catalogue, Role, Signature, catalogue, toolkit_codes

LINES = yaml.safe_load(Path(__file__).with_name("error_lines.yaml").read_text())
KNOWN = [(line, name) for name, lines in LINES["known"].items() for line in lines]
FAMILIES = yaml.load(FILE.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
ENTRIES = [entry for family in FAMILIES.values() for entry in family]
KEYS = {"name", "code", "exception", "says", "role", "warns", "cause", "remedy", "source"}


def test_every_entry_says_what_it_is_what_to_do_and_where_that_is_known_from():
    names = [entry["name"] for entry in ENTRIES]
    assert len(names) == len(set(names)) >= 60
    for entry in ENTRIES:
        assert set(entry) <= KEYS, entry["name"]
        assert {"code", "exception", "says"} & set(entry), entry["name"]
        assert all(entry[key] for key in ("cause", "remedy", "source")), entry["name"]
        assert entry["cause"].endswith(".") and entry["remedy"].endswith("."), entry["name"]


def test_an_error_is_listed_once():
    for key in ("codes", "exceptions", "says"):
        listed = [value for signature in catalogue().signatures for value in getattr(signature, key)]
        assert len(listed) == len(set(listed))


@pytest.mark.parametrize(("line", "name"), KNOWN)
def test_known(line, name):
    assert catalogue().find(line).name == name


def test_every_family_is_shown_in_these_tests():
    for family, members in FAMILIES.items():
        assert len(LINES["known"].keys() & {entry["name"] for entry in members}) >= 3, family


@pytest.mark.parametrize("line", LINES["innocent"])
def test_innocent(line):
    assert catalogue().find(line) is None


def test_every_text_is_found_in_a_line_that_has_it():
    for signature in catalogue().signatures:
        for text in signature.says:
            line = "[ERROR] " + text.replace("*", " 7 ")
            assert catalogue().find(line) is not None, text


def test_a_warning_counts_only_where_the_entry_says_so():
    warns = Signature("warns", "", "", "", says=("ranks are odd",), warns=True)
    other = Signature("other", "", "", "", says=("ranks",))
    assert Catalogue([other, warns]).find("[WARNING] ranks are odd") is warns
    assert Catalogue([other, warns]).find("[ERROR] ranks are odd") is other


def test_of_one_line_a_cause_counts_before_what_stands_before_it():
    assert catalogue().find(
        "RuntimeError: map operation: [x] failed: [Errno 28] No space left on device"
    ).name == ("disk-full")


def test_parts_of_a_text_are_looked_for_in_their_order():
    signature = Signature("x", "", "", "", says=("version[*] is not supported",))
    assert Catalogue([signature]).find("[ERROR] version[9] is not supported") is signature
    assert Catalogue([signature]).find("[ERROR] it is not supported by version[9]") is None


def test_sources_are_those_that_the_head_of_the_file_explains():
    known = r"HCCL|CANN|FAQ|FD |PTA |MS$|MS;|MindSpore, |RUN|OS|fcn/|\S+/\S+#\d+|.*\(tsukiyokai"
    for entry in ENTRIES:
        assert re.match(known, entry["source"]), entry["source"]


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    folder = tmp_path / "runtime/conf/error_manager"
    folder.mkdir(parents=True)
    for name in cann.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    return folder / "error_code.json"


def test_codes_of_the_toolkit_fill_the_gaps(toolkit):
    entry = {
        "ErrMessage": "Value %s is odd.",
        "suggestion": {"Possible Cause": "N/A", "Solution": "Make it even."},
    }
    codes = [{"ErrCode": code, **entry} for code in ("E10077", "EI0006", "EZ9123")]
    toolkit.write_text(json.dumps({"error_info_list": codes}))
    known = Catalogue(catalogue().signatures, toolkit_codes())
    found = known.find("E10077: Value 3 is odd.")
    assert (found.cause, found.remedy, found.role) == ("Value %s is odd.", "Make it even.", Role.CAUSE)
    assert found.source == str(toolkit)
    assert known.find("EI0006: ...").name == "link-timeout"  # ours says more
    assert known.find("EZ9123: ...").role is Role.SYMPTOM  # CANN's own inner error
    assert known.find("E10078: ...").name == "graph-engine"


@pytest.mark.parametrize("text", ["", "[]", '{"error_info_list": [{}]}', '{"error_info_list": 3}', "\0"])
def test_a_damaged_list_of_the_toolkit_is_no_list(toolkit, text):
    toolkit.write_text(text)
    assert toolkit_codes() == {}
