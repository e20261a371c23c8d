"""Malloc: what glibc is told of memory before a process starts."""

from collections.abc import Mapping
from typing import Final

TUNABLES: Final = "GLIBC_TUNABLES"
HUGE_PAGES: Final = "glibc.malloc.hugetlb"


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that is given its heap in pages of 2 MiB, where `environment` does not decide that.

    Batches come and go, and each page of theirs is cleared by the kernel when it is touched again: 4 KiB at a time that
    was a tenth of a drain's processor time. Since glibc 2.35 malloc asks for large ones (Linux gives them unless
    /sys/kernel/mm/transparent_hugepage/enabled says `never`); other C libraries do not know the variable.
    """
    tunables = environment.get(TUNABLES, "")
    if HUGE_PAGES in tunables:
        return dict(environment)
    return {**environment, TUNABLES: ":".join([*filter(None, [tunables]), f"{HUGE_PAGES}=1"])}
