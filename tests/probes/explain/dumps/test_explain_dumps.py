"""Dumps whose differences are known, in every form and shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from driftscope_probes.errors import ProbeError
from driftscope_probes.explain.dumps.comparing import run
from driftscope_probes.explain.dumps.files import MAX_FILES
from driftscope_probes.explain.dumps.names import keys_of, known_key
from driftscope_probes.explain.dumps.reading import read_dump
from driftscope_probes.explain.dumps.run import explain_dumps
from driftscope_probes.explain.report import ExplainReport
from driftscope_probes.progress import discard

from .made import (
    CONFIG,
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    TOKENS,
    Step,
    by_module,
    step,
    write,
    write_msprobe,
    write_sglang,
)

CONVERTER = Path(__file__).parents[4] / "examples/capture/pt_to_safetensors.py"


def explained(left: Path, right: Path) -> ExplainReport:
    """As the child does it, in this process."""
    request = {"left": str(left), "right": str(right)}
    return ExplainReport.read({**run(request, left, discard)})


def planted(made: Step, key: str, token: int, feature: int) -> Step:
    """One element one step away."""
    changed = {name: value.clone() for name, value in made.items()}
    value = changed[key]
    value[token, feature] = torch.nextafter(value[token, feature], torch.tensor(torch.inf))
    return changed


@pytest.mark.parametrize(
    ("key", "op", "site"),
    [
        ("embedding", "embedding", "embedding"),
        ("0.attention_norm", "norm", "attention_norm"),
        ("0.v_proj", "linear", "v_proj"),
        ("1.k_rotary", "rotary", "k_rotary"),
        ("1.attention", "attention", "attention"),
        ("1.residual_mid", "residual_norm", "residual_mid"),
        ("1.activation", "activation", "activation"),
        ("final_norm", "residual_norm", "final_norm"),
    ],
)
def test_one_planted_element_is_found(tmp_path: Path, key: str, op: str, site: str) -> None:
    made = step()
    report = explained(write(tmp_path / "a", made), write(tmp_path / "b", planted(made, key, 4, 3)))
    assert (report.verdict, report.exit_code) == ("unexplained", 1)
    assert report.first is not None
    first = report.first
    assert (first.op, first.site, first.token, first.feature, first.ulp) == (op, site, 4, 3, 1)
    assert (first.position, first.sequence, first.inputs) == (4, 0, "equal")
    assert first.trainer is not None and first.engine is not None
    assert first.trainer > first.engine
    named = [(one.op, one.layers) for one in report.ops]
    assert named[0] == (op, [int(key[0])] if key[0].isdigit() else [])


def test_what_follows_is_judged_where_its_inputs_are_equal(tmp_path: Path) -> None:
    made = step()
    changed = planted(planted(made, "0.q_proj", 4, 0), "0.attention", 2, 1)
    report = explained(write(tmp_path / "a", made), write(tmp_path / "b", changed))
    compared = {(one.layer, one.site): one for one in report.compared}
    attention = compared[0, "attention"]
    # q of token 4 differs, so its rotation is; attention sees it from there on only in itself.
    assert compared[0, "rotary"].tokens_with_equal_inputs == TOKENS - 1
    assert (attention.inputs, attention.tokens_with_equal_inputs) == ("equal", TOKENS)
    assert [op.op for op in report.ops] == ["linear", "attention"]
    assert report.ops[1].first is not None
    assert report.ops[1].first.token == 2


def test_attention_is_judged_up_to_the_first_unequal_token(tmp_path: Path) -> None:
    made = step()
    changed = planted(planted(made, "0.k_rotary", 3, 0), "0.attention", 5, 1)
    report = explained(write(tmp_path / "a", made), write(tmp_path / "b", changed))
    attention = next(c for c in report.compared if (c.layer, c.site) == (0, "attention"))
    assert (attention.tokens_with_equal_inputs, attention.equal_fraction) == (3, 1.0)
    assert attention.inputs == "different"
    assert [op.op for op in report.ops] == ["rotary"]


def test_ops_with_nothing_captured_between_are_one(tmp_path: Path) -> None:
    made = {n: v for n, v in step().items() if n.rpartition(".")[2] not in ("q_rotary", "k_rotary")}
    changed = planted(made, "0.attention", 4, 3)
    report = explained(write(tmp_path / "a", made), write(tmp_path / "b", changed))
    assert report.ops[0].label == "rotary or attention"
    assert "0.k_proj, 0.q_proj, 0.v_proj" in report.ops[0].why


def test_unknown_inputs_are_said(tmp_path: Path) -> None:
    made = {name: value for name, value in step().items() if name == "1.activation"}
    changed = planted(made, "1.activation", 4, 3)
    report = explained(write(tmp_path / "a", made), write(tmp_path / "b", changed))
    assert report.first is not None
    assert (report.first.inputs, report.ops) == ("unknown", [])
    assert "may come from before" in report.sentence


def test_a_number_that_is_none_is_told(tmp_path: Path) -> None:
    made = step()
    changed = {name: value.clone() for name, value in made.items()}
    changed["0.o_proj"][1, 2] = torch.nan
    report = explain_dumps(write(tmp_path / "a", made), write(tmp_path / "b", changed))
    assert report.first is not None
    assert (report.first.trainer, report.first.ulp) == (None, None)
    assert "no finite number in B" in report.sentence


def test_growth_is_of_the_residual_stream(tmp_path: Path) -> None:
    made = step()
    changed = {**made, "1.residual_in": made["1.residual_in"] * 2}
    report = explained(write(tmp_path / "a", changed), write(tmp_path / "b", made))
    assert [(one.layer, one.relative_difference) for one in report.growth] == [
        (0, 0.0),
        (1, pytest.approx(1.0)),
        (None, 0.0),
    ]


class TestForms:
    """The same tensors in two forms are equal, and one planted element is found through both."""

    def test_modules_of_vllm_against_places(self, tmp_path: Path) -> None:
        made = step(torch.bfloat16)
        ours = write(tmp_path / "a", made)
        theirs = write(tmp_path / "b", by_module(made))
        report = explained(ours, theirs)
        assert (report.verdict, report.uncovered) == ("equal", [])
        assert len(report.compared) == 26

    def test_packed_sizes_come_from_the_other_dump(self, tmp_path: Path) -> None:
        made = step()
        packed = {n: v for n, v in by_module(made).items() if ".attn." not in n and ".o_" not in n}
        report = explained(write(tmp_path / "a", packed), write(tmp_path / "b", made))
        assert "0.q_proj: in B alone" not in report.uncovered
        alone = write(tmp_path / "c", packed)
        both = explained(alone, alone)
        assert any(line.startswith("A: 0.qkv_proj: 32 features") for line in both.uncovered)

    def test_megatron_groups_queries_and_puts_tokens_first(self, tmp_path: Path) -> None:
        made = step()
        groups = [
            made[f"0.{name}"].reshape(TOKENS, KV_HEADS, -1)
            for name in ("q_proj", "k_proj", "v_proj")
        ]
        assert groups[0].shape[2] == HEADS // KV_HEADS * HEAD_DIM
        grouped = torch.cat(groups, dim=2).reshape(TOKENS, 1, -1)
        megatron = {
            "module.decoder.layers.0.self_attention.linear_qkv.output.0": grouped,
            "module.embedding.word_embeddings.inputs.0": made["tokens"].reshape(1, -1),
        }
        report = explained(
            write(tmp_path / "a", megatron, config=CONFIG), write(tmp_path / "b", made)
        )
        assert report.verdict == "equal"
        assert {one.site for one in report.compared} == {"q_proj", "k_proj", "v_proj"}

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_msprobe_with_numpy_files(self, tmp_path: Path, dtype: torch.dtype) -> None:
        made = step(dtype)
        changed = {name: value.clone() for name, value in made.items()}
        changed["1.up_proj"][3, 2] *= 2
        ours = write(tmp_path / "a", made)
        equal = explained(ours, write_msprobe(tmp_path / "b" / "step0" / "rank", made))
        assert (equal.verdict, equal.notes) == ("equal", [])
        report = explained(ours, write_msprobe(tmp_path / "c", changed))
        assert report.first is not None
        assert (report.first.site, report.first.token, report.first.feature) == ("up_proj", 3, 2)

    def test_statistics_show_a_difference_and_no_equality(self, tmp_path: Path) -> None:
        made = step()
        changed = {name: value.clone() for name, value in made.items()}
        changed["1.up_proj"][3, 2] += 50
        same = [write_msprobe(tmp_path / name, made, arrays=None) for name in "ab"]
        equal = explained(*same)
        assert (equal.verdict, equal.equal, equal.exit_code) == ("not_comparable", False, 2)
        assert "does not show equal bits" in equal.sentence
        report = explained(same[0], write_msprobe(tmp_path / "c", changed, arrays=None))
        assert (report.verdict, report.exit_code) == ("unexplained", 1)
        assert "1.gate_up_proj is the first that differs: Max" in report.sentence

    @pytest.mark.parametrize("form", ["sglang", "msprobe"])
    def test_pickles_are_refused_and_the_named_line_converts_them(
        self, tmp_path: Path, form: str
    ) -> None:
        made = step(torch.bfloat16)
        pickled = tmp_path / "pickled"
        if form == "sglang":
            write_sglang(pickled, made)
        else:
            write_msprobe(pickled, made, arrays="pt")
        with pytest.raises(ProbeError, match="pickle") as refused:
            read_dump(pickled)
        assert "pt_to_safetensors.py" in refused.value.remedy
        out = tmp_path / "out"
        subprocess.run([sys.executable, str(CONVERTER), str(pickled), str(out)], check=True)
        report = explained(out, write(tmp_path / "ours", made))
        assert (report.verdict, report.uncovered) == ("equal", [])


class TestAlignment:
    @pytest.mark.parametrize("shape", [(1, TOKENS), (TOKENS, 1)])
    def test_a_batch_of_one_is_the_sequence(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        made = step()
        batched = {n: v.reshape(*shape, -1) for n, v in made.items() if n != "tokens"}
        batched["tokens"] = made["tokens"].reshape(1, -1)
        report = explained(write(tmp_path / "a", made), write(tmp_path / "b", batched))
        assert (report.verdict, report.uncovered) == ("equal", [])

    def test_passes_follow_each_other_and_padding_is_dropped(self, tmp_path: Path) -> None:
        first, second = step(tokens=3, seed=1), step(tokens=5, seed=2)
        padded = {
            name: torch.stack([torch.cat([value, value[:2] * 0]), second[name]])
            for name, value in first.items()
        }
        padded["attention_mask"] = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
        one_by_one = write(tmp_path / "a", second, first)
        report = explained(one_by_one, write(tmp_path / "b", padded))
        assert report.verdict == "equal"
        assert report.alignment.checks[0].says == "8 tokens each"
        changed = {name: value.clone() for name, value in padded.items()}
        changed["0.up_proj"][0, 2, 5] += 1
        found = explained(one_by_one, write(tmp_path / "c", changed)).first
        assert found is not None
        assert (found.token, found.sequence, found.position) == (7, 1, 2)

    def test_one_sequence_decoded_token_by_token_is_one_sequence(self, tmp_path: Path) -> None:
        whole = step()
        whole["positions"] = torch.arange(TOKENS)
        passes = [{n: v[:4] for n, v in whole.items()}] + [
            {n: v[row : row + 1] for n, v in whole.items()} for row in range(4, TOKENS)
        ]
        report = explained(write(tmp_path / "a", whole), write(tmp_path / "b", *passes))
        assert report.verdict == "equal"

    def test_other_tokens_are_not_comparable(self, tmp_path: Path) -> None:
        made = step()
        tokens = made["tokens"].clone()
        tokens[5] = 1
        report = explained(
            write(tmp_path / "a", made), write(tmp_path / "b", {**made, "tokens": tokens})
        )
        assert (report.verdict, report.exit_code) == ("not_comparable", 2)
        assert "row 5: token 105 and token 1" in report.sentence
        fewer = explained(tmp_path / "a", write(tmp_path / "c", step(tokens=6)))
        assert (fewer.exit_code, fewer.sentence) == (2, "The dumps hold 7 and 6 tokens.")

    def test_other_positions_are_not_comparable(self, tmp_path: Path) -> None:
        made = step()
        shifted = {**made, "positions": torch.arange(1, TOKENS + 1)}
        report = explained(write(tmp_path / "a", made), write(tmp_path / "b", shifted))
        assert report.exit_code == 2
        assert "7 rows differ" in report.sentence

    def test_unequal_dtypes_are_rounded_and_it_is_said(self, tmp_path: Path) -> None:
        wide = step()
        narrow = {n: v.bfloat16() if v.is_floating_point() else v for n, v in wide.items()}
        report = explained(write(tmp_path / "a", narrow), write(tmp_path / "b", wide))
        assert report.verdict == "equal"
        assert report.notes == [
            "Dtypes differ: float32 to bfloat16 was rounded before they were compared; equal "
            "means equal after that."
        ]

    def test_log_probabilities_give_the_gap(self, tmp_path: Path) -> None:
        made = step()
        a, b = torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -2.5])
        report = explained(
            write(tmp_path / "a", {**made, "logprob": a}),
            write(tmp_path / "b", {**made, "logprob": b}),
        )
        assert report.gap is not None
        assert (report.gap.abs_diff_mean, report.gap.equal_fraction) == (0.25, 0.5)
        assert (report.verdict, report.first) == ("unexplained", None)
        assert "these differ: logprob" in report.sentence


class TestUntrusted:
    """What somebody else filled is refused with a remedy, never a traceback."""

    def test_a_truncated_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a", step()) / "000000.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ProbeError, match="not a whole one"):
            explain_dumps(tmp_path / "a", tmp_path / "a")

    def test_a_header_that_lies(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", step())
        (folder / "000001.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
        with pytest.raises(ProbeError, match="not a safetensors file"):
            read_dump(folder)

    def test_a_link(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a", step())
        (folder / "z.safetensors").symlink_to("/etc/passwd")
        with pytest.raises(ProbeError, match="is a link or a device"):
            read_dump(folder)

    def test_a_path_in_a_name(self, tmp_path: Path) -> None:
        folder = write_msprobe(tmp_path / "a", step())
        np.save(tmp_path / "secret.npy", np.zeros(3))
        index = folder / "dump.json"
        name = "Module.model.norm.Some.forward.0.output.0.npy"
        index.write_text(index.read_text().replace(name, "../../secret.npy"))
        with pytest.raises(ProbeError, match="not a name within dump_tensor_data"):
            read_dump(folder)

    def test_an_array_of_objects(self, tmp_path: Path) -> None:
        folder = write_msprobe(tmp_path / "a", step())
        path = folder / "dump_tensor_data/Module.model.norm.Some.forward.0.output.0.npy"
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(ProbeError, match="not a numpy array"):
            read_dump(folder)

    @pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, '{"data": 3}'])
    def test_json_that_is_none(self, tmp_path: Path, text: str) -> None:
        folder = write_msprobe(tmp_path / "a", step())
        (folder / "dump.json").write_text(text)
        with pytest.raises(ProbeError):
            read_dump(folder)

    @pytest.mark.parametrize("config", [{"num_attention_heads": "4"}, {"head_dim": -1}, [], 3])
    def test_a_config_that_is_none(self, tmp_path: Path, config: object) -> None:
        made = step()
        folder = write(tmp_path / "a", by_module(made))
        (folder / "capture.json").write_text(
            f'{{"config": {str(config).replace(chr(39), chr(34))}}}'
        )
        assert explained(folder, write(tmp_path / "b", made)).verdict == "equal"

    def test_several_ranks(self, tmp_path: Path) -> None:
        write(tmp_path / "a/rank0", step())
        assert read_dump(tmp_path / "a").steps
        write(tmp_path / "a/rank1", step())
        with pytest.raises(ProbeError, match="holds rank0, rank1") as refused:
            read_dump(tmp_path / "a")
        assert str(tmp_path / "a/rank0") in refused.value.remedy

    def test_nothing_that_is_known(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        for path in (tmp_path / "a", tmp_path / "none"):
            with pytest.raises(ProbeError):
                explain_dumps(path, path)
        write(tmp_path / "b", {"something": torch.zeros(3)})
        with pytest.raises(ProbeError, match="nothing in the safetensors dump") as refused:
            explained(tmp_path / "b", tmp_path / "b")
        assert "something" in refused.value.remedy

    def test_limits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write(tmp_path / "a", step())
        files = "driftscope_probes.explain.dumps.files"
        for name in ("MAX_TENSOR_BYTES", "MAX_TOTAL_BYTES", "MAX_FILES"):
            with monkeypatch.context() as patch:
                patch.setattr(f"{files}.{name}", 0)
                with pytest.raises(ProbeError) as refused:
                    read_dump(folder)
                assert refused.value.remedy
        assert MAX_FILES > 0


def test_names_of_gemma_and_of_routers() -> None:
    ends = {"inputs.0", "output"}
    post = "model.layers.3.post_attention_layernorm"
    assert keys_of(post, ends, gemma=True) == {"output": "3.attention_output_norm"}
    assert keys_of(post, ends, gemma=False) == {
        "output": "3.mlp_norm",
        "inputs.0": "3.residual_mid",
    }
    gate = {"output.0", "output.1", "output.2"}
    assert keys_of("model.layers.0.mlp.gate", gate, gemma=False) == {
        "output.0": "0.router",
        "output.1": "0.top_k_weights",
        "output.2": "0.top_k_experts",
    }
    assert keys_of("model.layers.0.mlp.shared", ends, gemma=False) == {}
    assert (known_key("3.q_proj"), known_key("input_ids"), known_key("x.q_proj")) == (
        "3.q_proj",
        "tokens",
        None,
    )


def test_weights_that_do_not_fit_are_not_used(tmp_path: Path) -> None:
    """Numbers of a stranger's config and weights of another model never end in a traceback."""
    config = {**CONFIG, "model_type": "llama", "rms_norm_eps": 1e-6, "hidden_act": "silu"}
    config["rope_theta"] = 10000.0
    made = step()
    weights = {
        "weights.model.embed_tokens.weight": torch.zeros(3, 8),
        "weights.model.norm.weight": torch.zeros(()),
        "weights.model.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2),
    }
    for key in ("embedding", "0.q_proj", "1.attention", "final_norm"):
        folder = tmp_path / key
        changed = planted(made, key, 4, 3)
        report = explained(
            write(folder / "a", made, weights, config=config),
            write(folder / "b", changed, weights, config=config),
        )
        assert (report.ops[0].reason, report.verdict) == ("unknown", "unexplained")
        assert report.alignment.weights_compared == 3
        # Attention needs no weights, and these made-up results are none of its inputs.
        assert ("not what it computed with" in report.ops[0].why) == (key == "1.attention")


def test_an_activation_needs_no_weights(tmp_path: Path) -> None:
    made = step()
    gate, up = made["0.gate_proj"], made["0.up_proj"]
    made["0.activation"] = torch.nn.functional.silu(gate) * up
    changed = {name: value.clone() for name, value in made.items()}
    changed["0.activation"] = torch.nn.functional.gelu(gate) * up
    config = {**CONFIG, "model_type": "llama", "hidden_act": "silu"}
    report = explained(
        write(tmp_path / "a", changed, config=config), write(tmp_path / "b", made, config=config)
    )
    (op,) = report.ops
    assert (report.verdict, op.op, op.layers, op.reason) == ("fault", "activation", [0], "formula")
    assert "gelu" in op.why.lower()
    assert op.beyond_tolerance is not None and op.beyond_tolerance > 0.5
