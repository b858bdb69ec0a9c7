"""Row: files that trip a rule, and files like them that do not.

One module beside this one per file of rules, each with ROWS; test_rules.py finds them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    rule: str
    #: File name, whose suffix says its form, → content. In the order in which they are given.
    trips: Mapping[str, str]
    clean: Mapping[str, str]
