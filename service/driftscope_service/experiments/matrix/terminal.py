"""Report of a matrix probe in the terminal: places, classes per score, what goes with them."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftscope_probes.matrix.report import MatrixReport, PairReport, PlaceReport, SubjectReport
from driftscope_probes.matrix.surroundings import RELATIONS, GoesWith
from driftscope_service.numbers.metric_words import number, seconds, share
from driftscope_service.terminal.findings import print_settings

STYLES = {"equal": "green", "differs": "red", "not_repeatable": "magenta"}
NONE = "–"


def print_matrix(report: MatrixReport, console: Console) -> None:
    """The sentence first; then places, the classes of every score, and the environments."""
    console.print(Text(report.sentence, style="bold"), soft_wrap=True)
    console.print()
    console.print(_places(report))
    for place in report.failed:
        console.print(Text(f"{place.name}: {place.reason}", "red"), soft_wrap=True)
        console.print(Text(f"What to do: {place.remedy}", "dim"), soft_wrap=True)
    for subject in report.subjects:
        _print_subject(subject, console)
    _print_facts(report, console)
    for note in report.notes:
        console.print(Text(note, "dim"), soft_wrap=True)
    print_settings(report.lint, console)
    console.print(Text(f"{seconds(report.timing['total_s'])} in all.", style="dim"))


def _places(report: MatrixReport) -> Table:
    table = _table("place", "runs on", "versions", "variables", "took")
    for place in report.places:
        if place.state == "failed":
            table.add_row(place.name, Text("could not be run", "red"), "", _variables(place), "")
            continue
        assert place.versions is not None and place.timing is not None
        hardware = ", ".join(place.gpus or []) or place.cpu or NONE
        versions = ", ".join(f"{name} {value}" for name, value in place.versions.items())
        took = place.timing.get("total_s")
        table.add_row(
            place.name,
            hardware,
            versions,
            _variables(place),
            NONE if took is None else seconds(took),
        )
    return table


def _variables(place: PlaceReport) -> str:
    return " ".join(f"{name}={value}" for name, value in place.variables.items())


def _print_subject(subject: SubjectReport, console: Console) -> None:
    console.print()
    heading = Text(f"{subject.words}: ", "bold")
    heading.append(subject.verdict.replace("_", " "), STYLES[subject.verdict])
    console.print(heading)
    for number_, names in enumerate(subject.classes, 1):
        console.print(Text(f"  {number_}. {', '.join(names)}"), soft_wrap=True)
    if subject.pairs:
        console.print(_pairs(subject))
    console.print(Text(subject.sentence), soft_wrap=True)


def _pairs(subject: SubjectReport) -> Table:
    greedy = subject.way == "greedy"
    tokens = ("other tokens",) if greedy else ()
    table = _table("places", "logp =", "mean |Δ|", "max |Δ|", "k3", *tokens, "first")
    for pair in subject.pairs:
        table.add_row(
            f"{pair.first}, {pair.second}",
            *(NONE if pair.bitwise_equal_fraction is None else share(pair.bitwise_equal_fraction),),
            *(_number(value) for value in (pair.abs_diff_mean, pair.abs_diff_max, pair.kl_k3)),
            *((_number(pair.differing_tokens),) if greedy else ()),
            first_words(pair),
        )
    return table


def first_words(pair: PairReport) -> str:
    first = pair.first_difference
    return NONE if first is None else f"token {first.token} of sequence {first.sequence}"


def _number(value: float | None) -> str:
    return NONE if value is None else number(value)


def _print_facts(report: MatrixReport, console: Console) -> None:
    if not report.facts:
        console.print(Text("\nNothing that was recorded differs between the places.", "dim"))
        return
    console.print(Text("\nWhat is not the same at all places", "bold"))
    for fact in report.facts:
        console.print(Text(f"{fact.kind} {fact.name}"))
        for value in dict.fromkeys(fact.values.values()):
            names = [name for name, own in fact.values.items() if own == value]
            console.print(Text(f"  {value}: {', '.join(names)}"), soft_wrap=True)
        for subject in report.subjects:
            for one in subject.goes_with:
                if (one.kind, one.name) == (fact.kind, fact.name):
                    line = f"  {subject.words}: {relation_words(one)}"
                    console.print(Text(line, "dim"), soft_wrap=True)


def relation_words(one: GoesWith) -> str:
    relation = RELATIONS.get(one.relation, one.relation)
    if one.only_between is None:
        return relation
    shown = "differ" if one.makes_difference else "agree"
    places = " and ".join(one.only_between)
    return f"{relation}; the only difference between {places}, which {shown}"


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
