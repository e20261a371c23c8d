"""`onhand check`: every complaint with its file and line, and an exit code that a pipeline can use."""

import json
from pathlib import Path

import pytest

from cli.configuration import is_rules
from tests.cli.command import CHECKOUT, assert_failed_in_one_line, onhand

GOOD_RULES = "[channels.web]\n"
EXAMPLES = ["examples/onhand.toml", "examples/rules.toml", "examples/demo/onhand.toml", "examples/demo/rules.toml"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_valid_without_a_warning(example: str) -> None:
    """What we hand out as examples runs as it is."""
    done = onhand("check", example, cwd=CHECKOUT)
    assert (done.returncode, done.stdout) == (0, f"{example}: valid\n")


def test_without_arguments_the_configuration_in_force_and_its_rules_are_checked(tmp_path: Path) -> None:
    """onhand.toml of the working directory, and the rules beside it."""
    (tmp_path / "onhand.toml").write_text('[rules]\npath = "our-rules.toml"\nshadow_path = "other.toml"\n')
    (tmp_path / "our-rules.toml").write_text(GOOD_RULES)
    (tmp_path / "other.toml").write_text(GOOD_RULES)
    done = onhand("check", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == "onhand.toml: valid\nour-rules.toml: valid\nother.toml: valid\n"


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    """One wrong key hides no other."""
    (tmp_path / "onhand.toml").write_text('[state]\nlanes = 0\n\n[redis]\nurl = 1\n[reddis]\nurl = "x"\n')
    (tmp_path / "rules.toml").write_text("[channels.web]\n\nshare_percent = 200\nlow_stock = 3\n")
    done = onhand("check", cwd=tmp_path)
    last = assert_failed_in_one_line(done, 2)
    assert last == "onhand: 5 errors and 0 warnings, to be corrected"
    lines = done.stdout.splitlines()
    assert lines[0].startswith("onhand.toml:6: error: reddis: unknown table")
    assert lines[1].startswith("onhand.toml:5: error: redis.url: ")
    assert lines[2].startswith("onhand.toml:2: error: state.lanes: ")
    assert lines[3].startswith("rules.toml:3: error: channels.web.share_percent: ")
    assert lines[4].startswith("rules.toml:4: error: channels.web.low_stock: unknown key")


def test_warnings_alone_end_with_0(tmp_path: Path) -> None:
    """Shares above 100 % over shared locations are odd, not wrong."""
    (tmp_path / "rules.toml").write_text("[channels.web]\n[channels.shop]\n")
    done = onhand("check", "rules.toml", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("rules.toml:2: warning: channels.shop.share_percent: ")


def test_complaints_as_json(tmp_path: Path) -> None:
    """A machine gets file, line, severity, path and message apart."""
    (tmp_path / "rules.toml").write_text("[channels.web]\nshare_percent = -1\n")
    done = onhand("check", "rules.toml", "--json", cwd=tmp_path)
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert (told["files"], told["errors"], told["warnings"]) == (["rules.toml"], 1, 0)
    assert told["complaints"][0] | {"message": ""} == {
        "file": "rules.toml", "severity": "error", "line": 2, "path": "channels.web.share_percent", "message": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"), [("[kafka\n", 1), ("[kafka]\ngroup = \n", 2), ('[kafka]\ngroup = "a"\ngroup = "b"\n', 3)]
)
def test_a_file_that_is_no_toml_is_told_with_its_line(text: str, line: int, tmp_path: Path) -> None:
    """Syntax is checked before sense."""
    (tmp_path / "onhand.toml").write_text(text)
    done = onhand("check", "onhand.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.startswith(f"onhand.toml:{line}: error: ")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are named as such."""
    (tmp_path / "onhand.toml").write_bytes(b"\xff\xfe[kafka]")
    assert onhand("check", cwd=tmp_path).stdout.startswith("onhand.toml: error: is not UTF-8")


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """Defaults stand in for a configuration that was not named, never for one that was."""
    done = onhand("check", "--config", "absent.toml", cwd=tmp_path)
    assert_failed_in_one_line(done, 2)
    assert "absent.toml: error: there is no such file" in done.stdout
    by_environment = onhand("check", cwd=tmp_path, settings={"config": "absent.toml"})
    assert "absent.toml: error: there is no such file" in by_environment.stdout


def test_the_environment_wins_and_is_checked(tmp_path: Path) -> None:
    """A wrong variable is named; a good one replaces what the file says."""
    (tmp_path / "rules.toml").write_text(GOOD_RULES)
    (tmp_path / "onhand.toml").write_text('[rules]\npath = "absent.toml"\n')
    done = onhand(
        "check", cwd=tmp_path, settings={"rules.path": "rules.toml", "state.lanes": "many", "kafka.grup": "x"}
    )
    assert done.returncode == 2
    assert "environment: error: ONHAND_STATE__LANES: " in done.stdout
    assert "environment: error: ONHAND_KAFKA__GRUP: names no setting" in done.stdout
    assert "rules.toml: valid" in done.stdout


def test_a_category_file_is_read_beside_the_rules_and_checked(tmp_path: Path) -> None:
    """Its faults are told with its own lines, its absence with the line that names it."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "rules.toml").write_text(
        '[channels.web]\n[categories]\ntoys = { file = "toys.csv" }\nbooks = { file = "books.csv" }\n'
    )
    (folder / "toys.csv").write_text("sku,category\nSKU-1,toys\nSKU-2\n")
    done = onhand("check", "rules/rules.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "rules/toys.csv:3: error: must be sku,category" in done.stdout
    assert "rules/rules.toml:4: error: categories.books: rules/books.csv: there is no such file" in done.stdout


@pytest.mark.parametrize(
    ("name", "text", "rules"),
    [
        ("a.toml", "[channels.web]\n", True),
        ("a.toml", "[[rules]]\n", True),
        ("a.toml", "[rules]\n", False),
        ("rules.toml", "[kafka]\n", False),
        ("rules.toml", "[kafka\n", True),
        ("onhand.toml", "", False),
    ],
)
def test_what_a_file_is_shows_by_its_tables_and_else_by_its_name(
    name: str, text: str, tmp_path: Path, *, rules: bool
) -> None:
    """`onhand check FILE` needs no flag for it."""
    (tmp_path / name).write_text(text)
    assert is_rules(tmp_path / name) is rules
