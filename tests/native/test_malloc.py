"""Workers are given their heap in huge pages, unless whoever starts them decides otherwise."""

import pytest

from native.malloc import TUNABLES, with_huge_pages


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0:glibc.malloc.arena_max=2", "glibc.malloc.hugetlb=0:glibc.malloc.arena_max=2"),
    ],
)
def test_what_else_is_told_stays(told: str | None, expected: str) -> None:
    """Other tunables and other variables; and a decision about huge pages."""
    environment = {"PATH": "/bin"} | ({} if told is None else {TUNABLES: told})
    assert with_huge_pages(environment) == {"PATH": "/bin", TUNABLES: expected}
