"""Lines of complaints: each at the line where a person wrote it, whatever stands before it."""

import pytest

from schemas.complaints import Complaint, Document, dotted, read_toml

BEFORE = [
    "",
    "# key = [\n",
    "other = 1\n\n\n",
    'other = [\n  "a]",  # ] and "\n  \'b[\',\n]\n',
    "other = [[1], [\n2, 3]\n]\n",
    'other = """\n[not.a.table]\nnor = "a key"\n"""\n',
    "other = '''\n[not.a.table]\n\\'''\n",
    'other = """one line"""\n',
    'other = """a""""\n',
    'other = """a \\""" [\n"""\n',
    'other = ["""a"""", "b"]\n',
    "other = ['''a'''', 'b']\n",
    'other = { inline = "a # [", list = [1, 2] }\n',
    "other = [{ a = 1 },\n  { a = 2 }]\n",
    'other.dotted."key" = "]["\n',
    'other = "a \\" [ # "  # [ \n',
    "other = 1979-05-27T07:32:00Z\r\n\r\n",
    "other = 1 # \u2028 is no end of a line, nor is \x85\n",
    "[before]\nx = 1\n[[list]]\ny = 1\n[[list]]\n",
]


@pytest.mark.parametrize("before", BEFORE)
def test_a_key_is_found_whatever_stands_before_it(before: str) -> None:
    """Strings and arrays over several lines, comments and brackets in quotes do not shift the count."""
    document = read_toml(f"{before}[channels.web]  # of all\nshare_percent = 5\n")
    assert isinstance(document, Document)
    line = before.count("\n") + 1
    assert document.line_of(("channels", "web")) == line
    assert document.line_of(("channels", "web", "share_percent")) == line + 1


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("channels.web.share_percent = 5", ("channels", "web", "share_percent"), 1),
        ("\nchannels.web.share_percent = 5", ("channels", "web"), 2),
        ("\nchannels . web . share_percent = 5", ("channels", "web", "share_percent"), 2),
        ("[channels]\nb2b.safety_units = 1\nweb.safety_units = 2", ("channels", "web", "safety_units"), 3),
        ('[channels."b2b/acme"]\n"cap_units" = 1', ("channels", "b2b/acme", "cap_units"), 2),
        ("[channels.'b2b/acme']\n'cap_units' = 1", ("channels", "b2b/acme", "cap_units"), 2),
        ('[channels."b2b\\u002facme"]\ncap_units = 1', ("channels", "b2b/acme", "cap_units"), 2),
        ('["a] # b"]\nx = 1', ("a] # b", "x"), 2),
        ("[ channels . web ]\nx = 1", ("channels", "web", "x"), 2),
        ('[[rules]]\nsku = "A"\n[[rules]]\nsku = "B"', ("rules", 1, "sku"), 4),
        ('[[rules]]\nsku = "A"\n\n[[rules]] # two\nsku = "B"', ("rules", 1), 4),
        ("[[a]]\n[a.b]\nx = 1\n[[a]]\n[a.b]\nx = 2", ("a", 1, "b", "x"), 6),
        ("[[a]]\n[[a.b]]\nx = 1\n[[a.b]]\nx = 2", ("a", 0, "b", 1, "x"), 5),
        ("\nchannels = { web = { share_percent = 5 } }", ("channels", "web", "share_percent"), 2),
        ("\nlist = [\n1,\n2]\nnext = 1", ("list", 1), 2),
        ("\nlist = [\n1,\n2]\nnext = 1", ("next",), 5),
        ("a = 1", ("nowhere",), None),
    ],
)
def test_each_way_to_write_a_key_has_its_line(text: str, path: tuple[str | int, ...], line: int | None) -> None:
    """Dotted, quoted and inline keys, and elements of arrays of tables; else the nearest thing around."""
    document = read_toml(text)
    assert isinstance(document, Document)
    assert document.line_of(path) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = ", 1),
        ("a = 1\nb = [1,\n2\nc = 3", 4),
        ("a = 1\n\nb", 3),
        ("a = 1\na = 2", 2),
        ('a = """\n\n', 3),
        ("[a]\n[a]", 2),
    ],
)
def test_a_text_that_is_no_toml_is_complained_about_at_its_line(text: str, line: int) -> None:
    """Syntax errors carry the line at which reading stopped."""
    complaint = read_toml(text)
    assert isinstance(complaint, Complaint)
    assert (complaint.severity, complaint.line) == ("error", line)
    assert "line" not in complaint.message


def test_a_path_is_written_as_people_do() -> None:
    """Dots between keys, brackets around numbers."""
    assert dotted(("rules", 2, "sku")) == "rules[2].sku"
    assert dotted(("channels", "web", "share_percent")) == "channels.web.share_percent"
