"""Shell scripts, as far as settings stand in them: commands as words, variables and arrays.

In: text of a script or one command line. Out: Script. Nothing is run: a word that needs the
shell ("$(nproc)", a variable set elsewhere) stays as it is, and values.py does not know it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

#: Characters and words that all expansions may add up to: A=$A$A doubles with every line.
_EXPANSIONS: Final = 2_000_000
#: Longest $(…) and ${…} that is taken as one; bounds what a text of "$($($(" costs.
_SPAN: Final = 400


def _nested(opening: str, closing: str, deep: int) -> str:
    """A pattern of brackets within brackets: $(((a + b) * 2)) and ${A:-"${B}/c"} are one."""
    inner = rf"[^{opening}{closing}\n]"
    within = inner if deep == 0 else rf"(?:{inner}|{_nested(opening, closing, deep - 1)})"
    return rf"\{opening}{within}{{0,{_SPAN}}}\{closing}"


_TOKEN: Final = re.compile(
    rf"""(?P<blank>(?:[ \t\r\f\v]|\\\r?\n|\d?>&\d|&>)+)
    |(?P<end>\n|;+|&&?|\|\|?)
    |(?P<comment>\#[^\n]*)
    |(?P<close>\))
    |'(?P<single>[^']*)'
    |"(?P<double>(?:\\[\s\S]|[^"\\])*)"
    |\\(?P<escaped>[\s\S])
    |(?P<shell>\${_nested("(", ")", 2)}|\${_nested("{", "}", 1)})
    |(?P<plain>[^\s'"\\;&|)$]+|.)""",
    re.VERBOSE,
)
_ASSIGNED: Final = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.DOTALL)
_ARRAY: Final = re.compile(r"(?P<name>[A-Za-z_]\w*)(?P<adds>\+?)=\((?P<first>.*)", re.DOTALL)
_VARIABLE: Final = re.compile(
    r"\$(?:(?P<bare>[A-Za-z_]\w*)"
    r"|\{(?P<name>[A-Za-z_]\w*|\d)(?:(?P<at>\[[@*]\])"
    r"|:?[-=](?P<default>(?:[^{}]|\{[^{}]*\})*))?\})"
)
_ESCAPED: Final = re.compile(r"\\(?:\n|([\"\\$`]))")
#: What may stand before assignments that a command is started with.
_SETS: Final = frozenset({"export", "env", "declare", "-x", "local", "set"})
#: By how much a word at the front of a command changes the number of open branches.
_BRANCHES: Final[Mapping[str, int]] = {"if": 1, "case": 1, "fi": -1, "esac": -1}
#: Words after which a command still begins.
_LEADS: Final = frozenset({"then", "else", "elif", "do", "{", "!", "time"})


#: The longest launch scripts of verl and slime have 20,000 characters.
LONGEST: Final = 2**19


@dataclass(frozen=True, slots=True)
class Script:
    variables: Mapping[str, str]  # exported or not; the last value of each
    commands: tuple[tuple[str, ...], ...]  # without the assignments before them


# Each reader of scripts asks twice for the same one: whether it is his, and for what it says.
@lru_cache(maxsize=1)
def read_script(text: str) -> Script:
    """Of the first LONGEST characters: what is longer is a log that quotes a command."""
    reading = _Reading()
    commands: list[tuple[str, ...]] = []
    branch = 0
    for raw in _lines(text[:LONGEST]):
        words = [word for piece in raw for word in reading.expanded(piece)]
        words = words[next((i for i, word in enumerate(words) if word not in _LEADS), len(words)) :]
        if words and words[0] in _BRANCHES:
            branch = max(0, branch + _BRANCHES[words[0]])
        elif branch:
            reading.forget(words)
        elif command := reading.assign(words):
            commands.append(tuple(command))
    return Script(reading.variables, tuple(commands))


@dataclass(slots=True)
class _Reading:
    """What is known at one place of a script."""

    variables: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, list[str]] = field(default_factory=dict)
    left: int = _EXPANSIONS

    def assign(self, words: list[str]) -> list[str]:
        """Takes the assignments at the front; what is left is the command."""
        for index, word in enumerate(words):
            if array := _ARRAY.fullmatch(word):
                rest = [array["first"], *words[index + 1 :]]
                before = self.arrays.get(array["name"], []) if array["adds"] else []
                self.arrays[array["name"]] = [*before, *(one for one in rest if one)]
                return []
            if assigned := _ASSIGNED.fullmatch(word):
                self.variables[assigned["name"]] = assigned["value"]
            elif word not in _SETS:
                return words[index:]
        return []

    def forget(self, words: list[str]) -> None:
        """Of a branch, which may not be run: what it assigns may be this or what it was before."""
        for word in words:
            if array := _ARRAY.fullmatch(word):
                if not array["adds"]:
                    self.arrays[array["name"]] = []
                return
            if assigned := _ASSIGNED.fullmatch(word):
                self.variables[assigned["name"]] = f"${assigned['name']}"

    def expanded(self, piece: tuple[str, bool]) -> list[str]:
        word, literal = piece
        if literal or "$" not in word:
            return [word]
        whole = _VARIABLE.fullmatch(word)
        if whole and whole["at"] and whole["name"] in self.arrays:
            items = self.arrays[whole["name"]]
            return items if self._spend(len(items)) else [word]
        once = _VARIABLE.sub(self._value, word)
        # Unquoted, a variable with several words ("$ARGS") is split by the shell.
        return once.split() if whole and once != word and " " in once else [once]

    def _value(self, match: re.Match[str]) -> str:
        name = match["bare"] or match["name"]
        value = self.variables.get(name, (match["default"] or match[0]).strip("\"'"))
        return value if self._spend(len(value)) else match[0]

    def _spend(self, much: int) -> bool:
        if much <= self.left:
            self.left -= much
            return True
        return False


def _lines(text: str) -> Iterator[list[tuple[str, bool]]]:
    """Words of each command; True: in single quotes, where nothing is expanded."""
    words: list[tuple[str, bool]] = []
    parts: list[str] = []
    literal, started, continued, array = False, False, False, False
    for token in _TOKEN.finditer(text):
        kind, value = token.lastgroup, token[token.lastgroup or 0]
        if kind == "double":
            value = _ESCAPED.sub(r"\1", value)
        if kind == "comment" and started:
            kind, value = "plain", value.split(maxsplit=1)[0]  # "a#b" is a word
        if kind in ("blank", "end", "comment", "close"):
            if started:
                words.append(("".join(parts), literal))
                array = array or bool(_ARRAY.match(words[-1][0]) and not literal)
            parts, literal, started = [], False, False
            if kind == "close":
                array = False
            elif kind == "end" and not array and not continued:
                if words:
                    yield words
                words = []
            # People comment a line out in the middle of a command that continues.
            continued = (kind == "blank" and "\n" in value) or (continued and kind == "comment")
        else:
            parts.append(value)
            literal = literal or kind == "single"
            started, continued = True, False
    if started:
        words.append(("".join(parts), literal))
    if words:
        yield words
