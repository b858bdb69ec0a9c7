"""Reports to look at: a paired grid, determinism axes, kernel verdicts and two weeks of nights.

In: a service. Out: the reports in its store, the same every time. But for the paired one nothing
was measured for them: they show pages, not kernels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from driftscope_probes.determinism.batch import Onset, Value
from driftscope_probes.determinism.report import (
    AxisReport,
    DeterminismReport,
    FirstDifference,
    Measure,
    Subject,
)
from driftscope_probes.determinism.request import AxisName, DeterminismRequest
from driftscope_probes.device.environment import Change
from driftscope_probes.dtypes import Dtype
from driftscope_probes.explain.report import ExplainReport
from driftscope_probes.kernels.report import (
    Counterexample,
    KernelsReport,
    KernelVerdict,
    Planted,
    Skipped,
)
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_probes.nightly.item import EngineItem, Finding, Item, KernelItem, not_run
from driftscope_probes.nightly.report import (
    Earlier,
    JudgedItem,
    NightConfig,
    NightKey,
    NightlyReport,
    alarms,
    exit_code,
)
from driftscope_probes.paired.report import PairedReport
from driftscope_service.demo import load
from driftscope_service.experiments.explain import kind as explain
from driftscope_service.experiments.paired import kind as paired
from driftscope_service.experiments.record import store_report
from driftscope_service.jobs.store import JobRepository
from driftscope_service.service import Service

MODEL = "smollm2-135m"
CREATED_AT = "2026-11-22T12:00:00+00:00"
ENVIRONMENT = {
    "python": "3.11.2",
    "packages": {"driftscope": "0.1.0", "torch": "2.13.0", "vllm": "0.32.0"},
    "hardware": {"cpu": "a CPU with AVX-512", "cores": 2},
    "variables": {"OMP_NUM_THREADS": "2"},
}
NIGHTS = 14


Report = PairedReport | DeterminismReport | KernelsReport | NightlyReport


def store(service: Service, report: Report, model: str | None = None) -> str:
    """The id of the report."""
    kind = report.kind
    with tempfile.TemporaryDirectory() as workdir:
        return store_report(
            report.to_dict(),
            kind=service.kinds[kind],
            model=model,
            workdir=Path(workdir),
            job_of=lambda connection: JobRepository(connection).add_succeeded(kind, model, {}).id,
            database=service.database,
            files=service.report_files,
        ).report_id


def store_all(service: Service) -> dict[str, str]:
    """The id of the last report by kind."""
    ids = {
        "paired": store(service, paired_report(), MODEL),
        "kernels": store(service, kernels_report()),
        "determinism": store(service, determinism_report(), MODEL),
        "explain": store(service, explain_report(), MODEL),
    }
    for number in range(NIGHTS):
        ids["nightly"] = store(service, night(number))
    return ids


def paired_report() -> PairedReport:
    """That of the demo: numbers as they are."""
    return PairedReport.read(load.recorded_report(paired.KIND, "paired"))


def explain_report() -> ExplainReport:
    """That of the demo: numbers as they are."""
    return ExplainReport.read(load.recorded_report(explain.KIND, "explain"))


_AXES: tuple[AxisName, ...] = (
    *("run_to_run", "fresh_process", "batch_size", "position", "neighbours", "arrival_order"),
    *("prefix_cache", "chunked_prefill", "decode_vs_prefill", "threads", "preemption"),
)
#: With stock kernels; the invariant ones keep all but the threads of one.
_DIFFERING: dict[str, Value] = {
    "batch_size": 2,
    "chunked_prefill": 16,
    "decode_vs_prefill": "decode",
}


def determinism_report(
    kernels: Sequence[str] = ("stock", "invariant"), dtypes: Sequence[str] = ("bf16", "fp32")
) -> DeterminismReport:
    return DeterminismReport(
        schema_version="1",
        kind="determinism",
        created_at=CREATED_AT,
        model={"name": MODEL},
        request=DeterminismRequest(model=MODEL, axes=list(_AXES)),
        axes=[_axis(axis, dtype, one) for one in kernels for dtype in dtypes for axis in _AXES],
        environment=ENVIRONMENT,
        timing={"total_s": 212.4},
        notes=[],
    )


def _axis(name: str, dtype: str, kernels: str) -> AxisReport:
    subject = Subject(name, dtype, kernels, "vllm")
    if name == "preemption":
        return AxisReport.not_run(subject, "the cache never filled: nothing was preempted")
    equal = Measure(8, 512, 512, 512, 1, 1, 0.0, 0, None, None)
    if kernels != "stock" or name not in _DIFFERING:
        return AxisReport.run(subject, 1, equal, {}, None)
    value = _DIFFERING[name]
    first = FirstDifference(cell=value, sequence="prompt 3", token=17)
    other = Measure(8, 512, 480, 211, 3, 3, 0.0413, 1_204, first, None)
    onset = Onset(setting=name, equal_up_to=1, differs_from=value, tested=(1, 2, 4, 8))
    replay = f"driftscope probe determinism --model {MODEL} --axes {name} --dtypes {dtype} --seed 0"
    axis = AxisReport.run(subject, 1, other, {1: equal, value: other}, onset)
    return axis.model_copy(update={"replay": replay})


#: (target, op, implementation), and whether its bits depend on the batch.
_KERNELS = (
    ("driftscope", "linear", "fixed_order", False),
    ("driftscope", "rms_norm", "fixed_order", False),
    ("driftscope", "log_softmax", "fixed_order", False),
    ("torch", "linear", "eager", True),
    ("torch", "rms_norm", "eager", False),
    ("torch", "log_softmax", "eager", False),
    ("vllm", "rms_norm", "native", False),
)


def kernels_report(
    dtypes: Sequence[Dtype] = ("bf16", "fp32"), threads: Sequence[int] = (1, 2), caught: int = 9
) -> KernelsReport:
    return KernelsReport(
        schema_version="1",
        kind="kernels",
        created_at=CREATED_AT,
        request=KernelsRequest(
            targets=None, ops=None, dtypes=list(dtypes), threads=list(threads), quick=True, seed=0
        ),
        verdicts=[
            _verdict(*kernel, dtype, count)
            for kernel in _KERNELS
            for dtype in dtypes
            for count in threads
        ],
        planted=Planted(caught=caught, total=9, missed=["split_k"] * (9 - caught)),
        skipped=[Skipped(target="triton", reason="there is no GPU")],
        environment=ENVIRONMENT,
    )


def _verdict(
    target: str, op: str, implementation: str, depends: bool, dtype: str, threads: int
) -> KernelVerdict:
    proved = target == "driftscope"
    refuted = depends and dtype == "bf16"
    reason = "the same order of additions at every shape that was probed"
    if refuted:
        reason = "the path for the last rows of a batch adds in another order"
    elif not proved:
        reason = "no difference in 4,096 calls"
    return KernelVerdict(
        target=target,
        op=op,
        implementation=implementation,
        dtype=dtype,
        threads=threads,
        verdict="REFUTED" if refuted else "PROVED" if proved else "NOT_REFUTED",
        reason=reason,
        detection_rate=None if refuted else 1.0 if proved else 0.98,
        counterexample=_counterexample(target, op, implementation) if refuted else None,
    )


def _counterexample(target: str, op: str, implementation: str) -> Counterexample:
    asked = f'{{"target":"{target}","op":"{op}","implementation":"{implementation}"}}'
    return Counterexample.read(
        {
            **{"cause": "M-remainder path", "evidence": "batch sizes 1, 2, 3 differ from 65"},
            **{"axis": "batch_size", "k": 64, "n": 4, "inputs": "normal", "row": 0},
            **{"left": {"count": 65, "row": 0}, "right": {"count": 1, "row": 0}},
            **{"rows_differ": 1, "rows_compared": 1},
            "difference": {
                **{"index": 2, "left": -2.515625, "right": -2.5, "ulps": 1, "elements": 2},
                **{"of": 4, "left_bits": "0xc021", "right_bits": "0xc020"},
            },
            "found_at": {"k": 576, "n": 1536},
            "replay": f"driftscope kernels check --replay '{asked}'",
        }
    )


_FIRST_NIGHT = datetime(2026, 11, 8, 3, 0, tzinfo=UTC)
_ITEMS: tuple[Item, ...] = (
    *(
        KernelItem(f"{target}/{op}", "bf16", 2, None, True, 0, expected)
        for target, ops, expected in (
            ("driftscope", ("linear", "rms_norm", "rope"), "PROVED"),
            ("torch", ("linear", "softmax"), "REFUTED"),
            ("vllm", ("rms_norm", "silu_and_mul"), "NOT_REFUTED"),
        )
        for op in ops
    ),
    EngineItem(MODEL, "vllm", "stock", "bf16", "batch_size", None, {}, "differs"),
    EngineItem(MODEL, "vllm", "invariant", "bf16", "batch_size", None, {}, "equal"),
    EngineItem(MODEL, "vllm", "invariant", "bf16", "prefix_cache", None, {}, "equal"),
)
#: From this night on with another PyTorch; what came of it is put right two nights later.
UPGRADE, MENDED = 9, 11
_UPGRADED = {"kernel/vllm/rms_norm/bf16/t2": "REFUTED", _ITEMS[8].id: "differs"}
_ADDED = _ITEMS[9].id


def night(number: int) -> NightlyReport:
    """`number` from 0."""
    items = [_judged(item, number) for item in _ITEMS if _verdict_of(item, number)]
    reasons = tuple(alarms(items, [], fail_on_environment=True, fail_on_bits=True))
    started = _FIRST_NIGHT + timedelta(days=number)
    upgraded = Change(kind="version", name="torch", before="2.12.0", after="2.13.0")
    return NightlyReport(
        schema_version="1",
        kind="nightly",
        exit_code=exit_code(items, reasons),
        started_at=started.isoformat(),
        finished_at=(started + timedelta(minutes=9)).isoformat(),
        config=NightConfig(name="cpu", sha256="0" * 64),
        key=NightKey(hardware={"cpu": "a CPU"}, versions={"torch": "2.13.0"}),
        alarms=reasons,
        items=tuple(one.report() for one in items),
        changed_environment=(upgraded,) if number == UPGRADE else (),
        environment={**ENVIRONMENT, "platform": "Linux", "libraries": {}, "kernel_packages": {}},
        resumed=0,
        budget_s=900.0,
        notes=(),
    )


def _judged(item: Item, number: int) -> JudgedItem:
    verdict = str(_verdict_of(item, number))
    finding = Finding(verdict, 12.5, {}, f"driftscope nightly --only '{item.id}'")
    if not finding.ran:
        finding = not_run(item, "the budget of the night was used up")
    before = [_verdict_of(item, earlier) for earlier in (number - 1, number - 2)]
    ran = next((one for one in before if one != "NOT_RUN"), None)
    earlier = None if ran is None else Earlier(ran, item.expected, item.settings, "a night before")
    return JudgedItem(item, finding, earlier)


def _verdict_of(item: Item, number: int) -> str | None:
    """None before the item was there."""
    if number < 0 or (item.id == _ADDED and number < UPGRADE):
        return None
    if item.id == "kernel/vllm/silu_and_mul/bf16/t2" and number == 4:
        return "NOT_RUN"
    if UPGRADE <= number < MENDED:
        return _UPGRADED.get(item.id, item.expected)
    return item.expected
