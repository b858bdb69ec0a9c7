"""An analysed step in the terminal: the answer on half a screen, and every number where asked.

In: a step, its analysis and a rich Console. Out: text and tables that never cut a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, Protocol

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from driftscope_probes.diagnosis.cause import Diagnosis, Evidence, NamedCause
from driftscope_probes.lint.report import read_findings
from driftscope_probes.plural import counted
from driftscope_service.numbers import diagnosis_words as words
from driftscope_service.numbers.diagnosis_words import read_diagnosis
from driftscope_service.numbers.metric_words import Shown, grouped, number, share, with_unit
from driftscope_service.runs.routing_words import print_routing, routing_summary
from driftscope_service.runs.step_words import hygiene_sentences, place_sentence, unused_sentence
from driftscope_service.terminal.findings import finding_lines, print_findings

LEGEND = (
    "In nats: Δ = log-probability by the trainer − by the engine, S = ΣΔ of a sequence, KL; "
    "ρ = exp Δ."
)
EFFECTS = {
    "tokens_dropped": "tokens\ndropped",
    "tokens_clipped": "tokens\nclipped",
    "sequences_dropped": "sequences\ndropped",
    "sequences_touched": "sequences\ntouched",
}
ABOUT_FILE = "schema_version"  # not about the step
#: One space of padding and one for the rule between columns, which SIMPLE_HEAD leaves blank.
GAP = 2

Groups = Mapping[str, Sequence[Shown]]


class Described(Protocol):
    """What is shown of a step besides its analysis: PushedStep, or what a service tells of one."""

    @property
    def sequences(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...


#: Size, tail, divergence, bias (rounding keeps the mean ratio at 1), what training loses, and what
#: could not be compared at all: one number for each question that the others do not answer. Their
#: labels of the tables are sentences; three have to fit on a line.
SIX: Final[Mapping[str, str]] = {
    "abs_diff_mean": "mean |Δ|",
    "abs_diff_p99": "p99 |Δ|",
    "kl_k3": "k3",
    "ratio_mean": "mean ρ",
    "ess_ratio_token": "ESS/tokens",
    "nonfinite_tokens": "tokens not finite",
}
PER_LINE: Final = 3
#: Keys of profiles, and the headings of their columns.
BY: Final = "by_"
PROFILE: Final = ("tokens", "mean |Δ|", "mean Δ", "largest |Δ|")
#: Half of a terminal of 48 lines; where more is said, evidence beyond the second line goes first.
HALF_SCREEN: Final = 24
MOST_EVIDENCE, LEAST_EVIDENCE = 4, 2
#: Missing data that are named; --json has the rest.
MOST_MISSING: Final = 3
TONES: Final[Mapping[str, str]] = {
    "bitwise_equal": "bold green",
    "at_floor": "bold green",
    "above_floor": "bold yellow",
    "bug_like": "bold red",
    "not_comparable": "bold red",
}
INDENT: Final = 2
HEALTHY: Final = ("bitwise_equal", "at_floor")


def print_analysis(
    name: str,
    step: Described,
    analysis: Mapping[str, Any],
    console: Console,
    *,
    every_number: bool = False,
) -> None:
    """The diagnosis and six numbers; with `every_number` the tables below them."""
    diagnosis = read_diagnosis(analysis.get("diagnosis"))
    routes = None if every_number else routing_summary(analysis.get("routing"))
    size = f"{counted(step.sequences, 'sequence')}, {counted(step.tokens, 'token')}"
    console.print(Text(f"{name}: {size}", "bold"))
    if every_number:
        _print_metadata(step, console)
    for part in _answer(diagnosis, analysis, routes, console, every=every_number):
        console.print(part)
    if every_number:
        print_findings(read_findings(analysis.get("lint") or ()), console)
        _print_all(analysis, console)
    else:
        console.print(Text("--all: every number, and what the presets would do to it.", "dim"))


def _answer(
    diagnosis: Diagnosis | None,
    analysis: Mapping[str, Any],
    routes: str | None,
    console: Console,
    *,
    every: bool,
) -> list[RenderableType]:
    """As much evidence as half a screen holds."""
    numbers = [
        *_values(analysis, every=every),
        *_six(analysis["comparison"]),
        *([] if routes is None else [Text(routes)]),
        *_inputs(analysis),
    ]
    if diagnosis is None:
        return [Text("No diagnosis: analysed by an older version.", "dim"), *numbers]
    for evidence in range(MOST_EVIDENCE, LEAST_EVIDENCE - 1, -1):
        parts = [*diagnosis_parts(diagnosis, evidence), Text(), *numbers]
        lines = sum(len(console.render_lines(part)) for part in parts)
        if lines + 2 <= HALF_SCREEN:  # the heading and the line that names --all
            break
    return parts


def diagnosis_parts(diagnosis: Diagnosis, evidence: int = MOST_EVIDENCE) -> list[RenderableType]:
    """The verdict, the sentence, the first cause with so much evidence, and what is left open."""
    verdict = Text(words.verdict_words(diagnosis.verdict), TONES[diagnosis.verdict])
    verdict.append(f": {words.excess_words(diagnosis)}", "not bold default")
    parts: list[RenderableType] = [verdict, Text(diagnosis.sentence)]
    if diagnosis.cause is not None:
        parts += _cause(diagnosis.cause, evidence)
    elif diagnosis.unexplained:
        parts.append(Text("Unexplained: no cause reaches the confidence of an answer.", "bold"))
        parts += _evidence(diagnosis.stood_out[:evidence])
    candidates = words.others(diagnosis)
    if candidates:
        also = "Also possible" if diagnosis.cause else "Candidates"
        parts.append(Text(f"{also}: {words.named(candidates)}"))
    if diagnosis.missing:
        named = "; ".join(diagnosis.missing[:MOST_MISSING])
        more = len(diagnosis.missing) - MOST_MISSING
        rest = f"; {more} more in --json" if more > 0 else ""
        parts.append(Text(f"Would tell more: {named}{rest}", "dim"))
    return parts


def _cause(cause: NamedCause, evidence: int) -> list[RenderableType]:
    head = Text(f"{cause.name}", "bold")
    head.append(f"  confidence {words.confidence(cause)}", "not bold")
    cut = len(cause.evidence) - evidence
    return [
        head,
        *_evidence(cause.evidence[:evidence]),
        *([Text(f"  {cut} more in --json", "dim")] if cut > 0 else []),
        _labelled("Change", cause.remedy),
        _labelled("Settle it", cause.next_control),
        _labelled("Page", cause.doc),
    ]


def _evidence(items: Sequence[Evidence]) -> list[RenderableType]:
    return [
        Padding(
            Text(f"{item.what}: {words.evidence_value(item)} (expected {item.expected})"),
            (0, 0, 0, INDENT),
            expand=False,
        )
        for item in items
    ]


def _labelled(title: str, text: str) -> RenderableType:
    return Text.assemble((f"{title}: ", "bold"), text)


def _values(analysis: Mapping[str, Any], *, every: bool) -> list[RenderableType]:
    """What is wrong with the values, and where the differences lie."""
    told = hygiene_sentences(analysis, every=every)
    parts = [_labelled("Values", " ".join(told))] if told else []
    place = place_sentence(analysis)
    return parts if place is None else [*parts, _labelled("Where", place)]


def _inputs(analysis: Mapping[str, Any]) -> list[RenderableType]:
    """What the settings of the sampling do, and what nothing reads."""
    notes = [_labelled("Note", note) for note in analysis.get("notes") or []]
    notes += finding_lines(read_findings(analysis.get("lint") or ()))
    unused = unused_sentence(analysis)
    return notes if unused is None else [*notes, Text(unused, "dim")]


def _six(comparison: Mapping[str, Any]) -> list[RenderableType]:
    """In lines of three."""
    told = [f"{short} {with_unit(name, comparison.get(name))}" for name, short in SIX.items()]
    return [
        Text("   ".join(told[first : first + PER_LINE])) for first in range(0, len(told), PER_LINE)
    ]


def _print_metadata(step: Described, console: Console) -> None:
    # Sorted: the safetensors library writes metadata in an order of its own.
    described = [f"{key} {v}" for key, v in sorted(step.metadata.items()) if key != ABOUT_FILE]
    if described:
        console.print(Text(", ".join(described), "dim"))


def _print_all(analysis: Mapping[str, Any], console: Console) -> None:
    groups = grouped(analysis["comparison"])
    console.print()
    console.print(_numbers(groups), crop=False)
    console.print()
    console.print(Text("\n".join([LEGEND, *_undefined(groups)]), "dim"))
    print_routing(analysis.get("routing"), console)
    _print_profiles(analysis.get("profiles") or {}, console)
    _print_presets(analysis["presets"], console, drops_healthy(analysis))


def _numbers(groups: Groups) -> Table:
    rows = list(chain.from_iterable(groups.values()))
    labels = [*groups, *(row.metric.label for row in rows)]
    table = _empty(
        [
            ("number", labels),
            ("value", [row.value for row in rows]),
            ("95 % interval", [row.interval or "" for row in rows]),
        ]
    )
    for title, shown in groups.items():
        table.add_row(Text(title, "bold"))
        for row in shown:
            cells = (row.metric.label, row.value, row.interval or "")
            table.add_row(*map(Text, cells), end_section=row is shown[-1])
    return table


def _print_profiles(profiles: Mapping[str, Any], console: Console) -> None:
    """The telling ones first; nothing for a step whose tokens are not at hand."""
    for profile in (one for name, one in profiles.items() if name.startswith(BY)):
        rows = [
            (
                _bin(row["from"], row["below"]),
                f"{row['tokens']:,}",
                *(number(row[name]) for name in ("abs_diff_mean", "diff_mean", "abs_diff_max")),
            )
            for row in profile["bins"]
        ]
        if not rows:
            continue
        columns = zip(*rows, strict=True)
        table = _empty(list(zip([profile["along"], *PROFILE], columns, strict=True)))
        for row in rows:
            table.add_row(*map(Text, row))
        console.print()
        console.print(Text(f"|Δ| by {profile['along']}", "bold"))
        console.print(Text(profile["sentence"]))
        console.print(table, crop=False)
    scan = profiles.get("offsets")
    if scan is not None:
        known = scan["correlation"].items()
        told = "   ".join(
            f"{int(offset):+d} {'undefined' if value is None else f'{value:.4f}'}"
            for offset, value in known
        )
        console.print()
        console.print(Text("Correlation of the trainer's probability with the rollout's", "bold"))
        console.print(Text(f"offset {told}"))


def _bin(start: float, below: float) -> str:
    return f"{start:,.0f}" if below - start <= 1 else f"{start:,.0f} – {below - 1:,.0f}"


def _undefined(groups: Groups) -> list[str]:
    """One line per reason: without tokens, every number has the same one."""
    labels: dict[str, list[str]] = {}
    for row in chain.from_iterable(groups.values()):
        if row.reason:
            labels.setdefault(row.reason, []).append(row.metric.label)
    return [f"Undefined, {reason}: {', '.join(names)}." for reason, names in labels.items()]


def _print_presets(
    presets: Mapping[str, Mapping[str, Any]], console: Console, too_narrow: Sequence[str]
) -> None:
    """Those that would drop or clip something; the others in one line."""
    acting = {name: e for name, e in presets.items() if e.get("sequences_touched")}
    left_out = [name for name, e in presets.items() if "left_out" in e]
    console.print()
    console.print(Text("What rejection and truncation presets would do", "bold"))
    if acting:
        rows = [[name, *(share(e[key]) for key in EFFECTS)] for name, e in acting.items()]
        columns = zip(*rows, strict=True)
        table = _empty(list(zip(["preset", *EFFECTS.values()], columns, strict=True)))
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table, crop=False)
        console.print()
    if too_narrow:
        console.print(Text(f"{DROPS_HEALTHY}: {', '.join(too_narrow)}.", "yellow"))
    idle = len(presets) - len(acting) - len(left_out)
    lines = [f"{counted(idle, 'more preset' if acting else 'preset')} would drop and clip nothing."]
    if left_out:
        lines.append(f"Not tried (no advantages or tokens): {', '.join(left_out)}.")
    console.print(Text("\n".join(lines), "dim"))


#: Beside presets that leave nothing of a step whose difference is rounding.
DROPS_HEALTHY: Final = (
    "Leaves nothing of this step, whose difference is rounding alone; bounds narrower than the "
    "floor at this precision and length would stop training, not protect it"
)


def drops_healthy(analysis: Mapping[str, Any]) -> list[str]:
    """Names of the presets that leave no token or no sequence of a step at its floor."""
    if (analysis.get("diagnosis") or {}).get("verdict") not in HEALTHY:
        return []
    return [
        name
        for name, effect in analysis["presets"].items()
        if effect.get("tokens_dropped") == 1 or effect.get("sequences_dropped") == 1
    ]


def _empty(columns: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """Without rows, with its own width: rich shrinks columns where the room is short."""
    widths = [max(map(cell_len, (*head.split("\n"), *cells))) for head, cells in columns]
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0, 0, 1),
        width=sum(widths) + GAP * (len(widths) - 1),
    )
    for index, ((head, _), width) in enumerate(zip(columns, widths, strict=True)):
        table.add_column(head, justify="right" if index else "left", width=width, no_wrap=True)
    return table
