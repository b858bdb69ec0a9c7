"""Every module is reached by a test: one imports it, or RUN_BY names the test that runs it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOTS = ("service", "probes", "kernels", "dashboards/src")
NAME = re.compile(r"driftscope_\w+(?:\.\w+)+")
#: Modules that a test runs without importing them: a pattern of their names, the test, and what is
#: written there that runs them, such as a route, a command or an op.
RUN_BY = r"""
driftscope_dashboards.* tests/dashboards/grafana/test_boards.py as_json(BOARDS[
driftscope_kernels.autograd.* tests/kernels/autograd/test_gradients.py ops.token_logprob(
driftscope_kernels.check.cases.gradient_* tests/kernels/check/cases/test_gradients.py ".grad"
driftscope_kernels.check.cases.op_inputs tests/kernels/check/cases/test_inputs.py op_case(
driftscope_kernels.check.static.static_process
    tests/kernels/check/static/test_static_kernels.py read_static(
driftscope_kernels.compare_ops.attention_*
    tests/kernels/compare_ops/test_attention.py ATTENTION.fitted(
driftscope_kernels.invariant_mode.aten_ops
    tests/kernels/invariant_mode/test_mode.py invariant_mode():
driftscope_kernels.invariant_mode.backward
    tests/kernels/invariant_mode/test_backward.py torch.autograd.grad(
driftscope_kernels.invariant_mode.torch_functions
    tests/kernels/invariant_mode/test_cross_entropy.py F.cross_entropy(
driftscope_kernels.on_policy.weights.*
    tests/kernels/on_policy/weights/test_proof.py WeightsProof(
driftscope_kernels.invariant_mode.norm_recognition
    tests/kernels/invariant_mode/test_norm_recognition.py routed["rms_norm"]
driftscope_kernels.invariant_mode.torch_functions
    tests/kernels/invariant_mode/test_torch_functions.py F.rms_norm(
driftscope_kernels.triton_kernels.attention_tiles
    tests/kernels/triton_kernels/test_attention.py attention.attention(
driftscope_kernels.triton_kernels.matmul
    tests/kernels/triton_kernels/test_linear.py triton_kernels.linear
driftscope_kernels.triton_kernels.row_blocks
    tests/kernels/triton_kernels/test_linear_backward.py linear.linear_bias_grad(
driftscope_kernels.vllm_plugin.attention
    tests/kernels/vllm_plugin/test_batch_invariance.py RunEngines
driftscope_kernels.vllm_plugin.rotary tests/kernels/vllm_plugin/test_batch_invariance.py RunEngines
driftscope_probes.diagnosis.controls.engine.*
    tests/probes/diagnosis/controls/test_engine_controls.py BY_NAME[control].run(
driftscope_probes.engines.vllm_seeds
    tests/probes/diagnosis/controls/test_engine_controls.py live.engine.sample(WHOLE)
driftscope_probes.engines.sessions.hf_batches
    tests/probes/engines/sessions/test_hf_batches.py engine="hf"
driftscope_probes.engines.sessions.vllm_batches
    tests/probes/engines/sessions/test_vllm_batches.py run_determinism(
driftscope_probes.engines.sessions.run_session
    tests/probes/engines/sessions/test_hf_batches.py run_determinism(
driftscope_probes.diagnosis.controls.weights.*
    tests/probes/diagnosis/controls/weights/test_weights_controls.py BY_NAME[name].run(
driftscope_probes.engines.sessions.recorded_routes
    tests/probes/diagnosis/controls/weights/test_routes.py bench.routed(
driftscope_service.store.storage.guarded tests/service/test_storage.py run_service(
driftscope_probes.engines.vllm_lora tests/cases/test_lora_merge.py "--engine-adapter",
driftscope_probes.explain.planted.* tests/service/cli/test_drill_explain.py "--explain",
driftscope_service.jobs.executors.ray.driver
    tests/service/jobs/executors/ray/test_cluster.py executor_on(
driftscope_service.jobs.executors.ray.attachment
    tests/service/jobs/executors/ray/test_cluster.py executor_on(
driftscope_service.runs.ingest.large_steps.*
    tests/service/runs/ingest/large_steps/test_on_ray.py executor="ray"
driftscope_service.cli.drill_explain tests/service/cli/test_drill_explain.py "--explain",
driftscope_probes.explain.batch_explanation
    tests/probes/explain/test_against_itself.py explain_batch(
driftscope_probes.explain.run_against_itself
    tests/probes/explain/test_against_itself.py explain_batch(
driftscope_probes.pair_process tests/service/cli/test_explain.py driftscope("explain"
driftscope_probes.explain.[cefgkotw]* tests/probes/explain/pair_script.py compare_sides(
driftscope_probes.explain.run tests/service/cli/test_explain.py driftscope("explain"
driftscope_probes.explain.sides.[bhrv]* tests/probes/explain/pair_script.py load_sides(
driftscope_kernels.compare_ops.[fl]*_* tests/kernels/compare_ops/test_logprob.py LOGPROB
driftscope_kernels.compare_ops.norm_* tests/kernels/compare_ops/test_norm.py NORM
driftscope_kernels.compare_ops.rotary_* tests/kernels/compare_ops/test_rotary.py ROTARY
driftscope_kernels.compare_ops.top_k tests/kernels/compare_ops/test_mixture.py TOP_K
driftscope_kernels.vllm_plugin.log_softmax
    tests/kernels/vllm_plugin/test_batch_invariance.py RunEngines
driftscope_probes.explain.numbers_of_ops tests/probes/explain/test_alignment.py align(
driftscope_probes.explain.sides.module_names tests/probes/explain/test_alignment.py align(
driftscope_probes.explain.sides.packed_weights
    tests/probes/explain/alignment_script.py engine_parameters(
driftscope_probes.trainer.reference_forward
    tests/probes/trainer/test_run_session.py reference=True)
driftscope_probes.trainer.replayed_routes
    tests/probes/diagnosis/controls/weights/test_routes.py own.score_routed(
driftscope_probes.diagnosis.families.*
    tests/probes/diagnosis/test_diagnose.py diagnose(make(7,
driftscope_probes.diagnosis.drill.floors
    tests/probes/diagnosis/drill/test_run.py driftscope_probes.diagnosis.drill.run
driftscope_probes.diagnosis.drill.planted.*_faults
    tests/probes/diagnosis/drill/planted/test_run.py run_controls(request
driftscope_probes.diagnosis.drill.planted.*_child
    tests/probes/diagnosis/drill/planted/test_run.py run_controls(request
driftscope_probes.diagnose.fixed_order
    tests/probes/diagnosis/drill/planted/test_run.py fixed_controls
driftscope_probes.diagnosis.routing_*
    tests/probes/diagnosis/test_routing_integrity.py routing_integrity(
driftscope_probes.explain.dumps.*
    tests/probes/explain/dumps/test_explain_dumps.py run(request,
driftscope_probes.explain.server.*
    tests/probes/explain/server/test_explain_server.py explain_server(
driftscope_probes.fingerprint.run tests/service/cli/test_fingerprint.py fingerprint("--device",
driftscope_probes.fingerprint.suspects
    tests/probes/fingerprint/test_difference.py .suspects]
driftscope_probes.fingerprint.[fopsu]*
    tests/probes/fingerprint/test_simulated.py read_unit(each.unit)
driftscope_probes.floor.measure tests/probes/floor/test_run.py driftscope_probes.floor.run
driftscope_probes.paired.sides tests/probes/paired/test_kernels.py run_paired(
driftscope_service.cli.local_store tests/service/cli/test_keeping.py build_app(WITH_TOY)
driftscope_service.experiments.delete_pages
    tests/service/experiments/test_reports_api.py /delete"
driftscope_service.experiments.deletion tests/service/experiments/test_reports_api.py delete(
driftscope_service.experiments.reports_command tests/service/cli/test_keeping.py "reports",
driftscope_service.experiments.start_pages tests/service/pages/test_start_page.py /probes/new/
driftscope_service.experiments.submitted
    tests/service/experiments/test_reports_api.py post("/v1/reports"
driftscope_service.experiments.diagnose.* tests/service/cli/test_diagnose.py driftscope("diagnose"
driftscope_service.experiments.fingerprint.*
    tests/service/cli/test_fingerprint.py fingerprint("diff"
driftscope_service.experiments.explain.command
    tests/service/cli/test_explain.py driftscope("explain"
driftscope_service.experiments.explain.*
    tests/service/experiments/explain/test_job.py /v1/probes/explain
driftscope_service.terminal.pair_options tests/service/cli/test_explain.py driftscope("explain"
driftscope_service.runs.brought tests/service/experiments/diagnose/test_job.py /v1/probes/diagnose
driftscope_probes.diagnose.pair tests/service/cli/test_diagnose.py driftscope("diagnose"
driftscope_probes.diagnose.* tests/probes/diagnose/test_investigation.py examine(
driftscope_probes.diagnose.hand tests/service/cli/test_diagnose.py driftscope("diagnose"
driftscope_probes.diagnosis.by_hand.* tests/probes/diagnosis/by_hand/test_registry.py instructions(
driftscope_service.experiments.paired.command
    tests/service/cli/test_probe.py driftscope("probe",
driftscope_service.experiments.floor.* tests/service/cli/test_floor.py driftscope("floor",
driftscope_service.experiments.matrix.metrics
    tests/service/experiments/test_every_kind.py kind.families(
driftscope_probes.matrix.run_place tests/probes/matrix/test_local_places.py LocalPlace("here")
driftscope_probes.diagnosis.plots tests/probes/diagnosis/test_diagnose.py .plot
driftscope_probes.diagnosis.missing tests/probes/diagnosis/test_diagnose.py .missing[0]
driftscope_probes.diagnosis.sentence tests/probes/diagnosis/test_diagnose.py .sentence.startswith(
driftscope_probes.engines.vllm_in_process
    tests/probes/engines/test_vllm_in_process.py make_task("vllm"
driftscope_probes.mismatch.frameworks.token_read
    tests/probes/mismatch/frameworks/test_unmasked_tokens.py unmasked_tokens(pair)
driftscope_probes.mismatch.fused.block_loading
    tests/probes/mismatch/fused/test_token_pass.py token_pass(
driftscope_probes.lint.readers.* tests/probes/lint/test_rules.py read_paths(
driftscope_probes.lint.rules.* tests/probes/lint/test_rules.py ALL_RULES)
driftscope_probes.nightly.*_items tests/probes/nightly/test_kernel_work.py run_nightly(
driftscope_probes.trainer.kernels tests/probes/trainer/test_kernels.py "invariant"
driftscope_service.auth.access tests/service/auth/test_access.py require_keys=True
driftscope_service.auth.audit_routes tests/service/auth/test_audit.py /v1/audit
driftscope_service.cli.audit tests/service/cli/test_audit.py "audit",
driftscope_service.auth.login_page tests/service/pages/test_login_page.py post("/login"
driftscope_service.cli.drill tests/service/cli/test_drill.py driftscope("drill"
driftscope_service.cli.environment tests/service/cli/test_lint.py driftscope("environment")
driftscope_service.cli.lint tests/service/cli/test_lint.py app_of(["lint"])
driftscope_kernels.cpu.onednn tests/kernels/compare_ops/test_linear.py linear_ways.onednn(
driftscope_probes.tokenizer_child tests/probes/test_tokenization.py tokenize(templated
driftscope_service.runs.ingest.one_blas_thread
    tests/service/runs/ingest/test_analysis.py pool.run(np.dot
driftscope_service.runs.ingest.analysis_preload
    tests/service/runs/api/test_uploads.py pushing.push(body)
driftscope_service.store.storage.named_files tests/service/store/test_identity.py claim_storage(
driftscope_service.cli.model tests/service/cli/test_model.py "fetch"
driftscope_service.experiments.nightly.api
    tests/service/experiments/nightly/test_api.py "/v1/nightly"
driftscope_service.experiments.nightly.command
    tests/service/cli/test_nightly.py driftscope("nightly"
driftscope_service.experiments.nightly.page tests/service/pages/test_nightly_page.py "/nightly"
driftscope_service.experiments.route
    tests/service/experiments/test_reports.py /v1/reports/{report}
driftscope_service.experiments.route
    tests/service/experiments/kernels/test_route.py "/v1/probes/kernels"
driftscope_service.experiments.schedules
    tests/service/experiments/test_schedules.py put("/v1/schedules/
driftscope_service.experiments.verdict_page tests/service/pages/test_kernels_page.py "/kernels"
driftscope_service.health tests/service/test_health.py get("/readyz"
driftscope_service.jobs.api tests/service/jobs/test_api.py get("/v1/jobs"
driftscope_service.*current* tests/service/jobs/test_api.py get("/v1/jobs"
driftscope_service.jobs.executor tests/service/jobs/test_executor.py .executor.cancel(
driftscope_service.lint.* tests/service/lint/test_api.py post("/v1/lint"
driftscope_service.openapi tests/service/test_openapi.py get("/openapi.json")
driftscope_service.pages.page*
    tests/service/pages/test_browser_errors.py /problems/internal-error
driftscope_service.http.parameters tests/service/http/test_parameters.py "no_such"
driftscope_service.pages.docs_page tests/service/pages/test_docs_page.py get("/docs"
driftscope_service.pages.glossary_page tests/service/pages/test_glossary.py get("/glossary"
driftscope_service.pages.term_link tests/service/pages/test_glossary.py number_term(
driftscope_service.runs.ingest.placing tests/service/runs/api/test_attempts.py refused["remedy"]
driftscope_service.runs.ingest.refusals
    tests/service/runs/api/test_attempts.py ["last_refusal"]
driftscope_service.runs.command tests/service/cli/test_push.py driftscope_service.cli.main
driftscope_service.runs.ingest.removal tests/service/runs/api/test_removal.py client.delete(
driftscope_service.runs.api.* tests/service/runs/api/test_uploads.py /v1/runs/r/steps/1/logprobs
driftscope_service.runs.ingest.accept tests/service/runs/api/test_uploads.py /logprobs?shard=0
driftscope_service.runs.pages.* tests/service/pages/test_pages.py "/runs/broken/steps/
driftscope_service.terminal.exits tests/service/cli/test_lint.py .returncode
driftscope_service.store.dialects.base tests/service/store/test_database.py Database(
driftscope_service.store.migrations.*
    tests/service/store/test_migrate.py migrate.upgrade(postgresql_url)
"""


def test_every_module_is_reached() -> None:
    assert faults(ROOT, RUN_BY) == []


def test_planted_faults_are_found(tmp_path: Path) -> None:
    package = "service/driftscope_a"
    written = {
        f"{package}/__init__.py": "from driftscope_a.given import f",
        **{f"{package}/{name}.py": "" for name in ("given", "mine", "child", "served", "lost")},
        "tests/test_a.py": '"""driftscope_a.lost"""\nfrom driftscope_a import f, mine\n'
        'run(["-m", "driftscope_a.child"])\nget("/v1/served")\n',
    }
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    rows = "driftscope_a.served tests/test_a.py /v1/served\n"
    assert faults(tmp_path, rows) == ["driftscope_a.lost: no test reaches it"]
    rows += "driftscope_a.moved tests/test_a.py /v1/served\n"
    rows += "driftscope_a.l* tests/test_a.py /v1/lost driftscope_a.* tests/test_b.py x"
    assert faults(tmp_path, rows) == [
        "driftscope_a.moved: there is no such module",
        "driftscope_a.l*: tests/test_a.py does not say /v1/lost",
        "driftscope_a.*: there is no tests/test_b.py",
    ]


def faults(root: Path, run_by: str) -> list[str]:
    """What is wrong with the modules and the tests of a tree, and with the table."""
    modules, words = _modules(root), iter(run_by.split())
    rows = list(zip(words, words, words, strict=True))
    missed = [
        f"{name}: no test reaches it"
        for name in sorted(modules - _imported(root, modules))
        if not any(fnmatchcase(name, pattern) for pattern, _, _ in rows)
    ]
    return missed + [fault for row in rows for fault in _row_faults(root, modules, *row)]


def _row_faults(root: Path, modules: set[str], pattern: str, test: str, what: str) -> Iterator[str]:
    if not any(fnmatchcase(name, pattern) for name in modules):
        yield f"{pattern}: there is no such module"
    if not (root / test).is_file():
        yield f"{pattern}: there is no {test}"
    elif what not in (root / test).read_text(encoding="utf-8"):
        yield f"{pattern}: {test} does not say {what}"


def _modules(root: Path) -> set[str]:
    """Dotted names; a package runs with whatever is imported from it."""
    return {
        ".".join(path.relative_to(root / part).with_suffix("").parts)
        for part in ROOTS
        for path in (root / part).rglob("*.py")
        if path.name != "__init__.py"
    }


def _imported(root: Path, modules: set[str]) -> set[str]:
    """Modules that a test imports, names in a string, or takes a name of from their package."""
    tests = {*(root / "tests").rglob("*.py")} - {Path(__file__)}  # the table is no import
    names = {name for test in tests for name in _names(test)}
    for part in ROOTS:
        for init in (root / part).rglob("__init__.py"):
            package = ".".join(init.parent.relative_to(root / part).parts)
            names |= {n for n in _names(init) if f"{package}.{n.rpartition('.')[2]}" in names}
    within = {name[: dot.start()] for name in names for dot in re.finditer(r"\.|$", name)}
    return modules & within


def _names(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, or has in a string that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from () if id(node) in docstrings else NAME.findall(node.value)
