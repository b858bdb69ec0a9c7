"""Dropout in the trainer (TRL 3500, 3234): GPT-2's own defaults, named, and the cell without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from .command_line import printed, run

#: Untrained embeddings are too small for their positions and tokens to matter.
EMBEDDINGS = 20
RATES = {"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1}


def tiny_gpt2(tokenizer: Path, folder: Path, **config: Any) -> str:
    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(tokenizer)
    sizes = {"n_positions": 512, "n_embd": 64, "n_layer": 2, "n_head": 4}
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), **sizes, **ends, **config))
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(EMBEDDINGS)
        model.transformer.wte.weight.mul_(EMBEDDINGS)
    model.to(torch.bfloat16).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def arguments(model: str) -> list[str]:
    chosen = ["probe", "paired", "--model", model, "--engine", "hf", "--engine-dtypes", "fp32"]
    chosen += ["--trainer-dtypes", "fp32", "--prompts", "4", "--max-tokens", "24", "--threads"]
    return [*chosen, "1", "--batch-size", "1", "--no-chat-template", "--no-headroom"]


@pytest.mark.slow
def test_dropout_is_named_and_a_cell_without_it_stands_beside(
    tiny_llama: Path, tmp_path: Path
) -> None:
    model = tiny_gpt2(tiny_llama, tmp_path / "gpt2")
    report = printed(*arguments(model), "--out", "report", cwd=tmp_path)
    (cell,) = report["grid"]
    assert cell["comparison"]["abs_diff_mean"] > 0.01
    found = report["dropout"]
    assert {rate["field"]: rate["rate"] for rate in found["rates"]} == RATES
    (without,) = found["cells"]
    assert without["abs_diff_mean"] == cell["comparison"]["abs_diff_mean"]
    assert without["comparison"]["abs_diff_mean"] < 1e-6
    assert without["diagnosis"]["verdict"] == "at_floor"
    assert cell["diagnosis"]["causes"][0]["name"] == "dropout_active"
    assert "dropout (attn 0.1, embd 0.1, resid 0.1)" in found["sentence"]
    # No side is nearer to the truth by its precision: it is not a matter of precision.
    assert cell["which_side"] is None
    html = (tmp_path / "report" / "report.html").read_text()
    assert "dropout (attn 0.1, embd 0.1, resid 0.1)" in html and "Without dropout" in html


@pytest.mark.slow
def test_without_dropout_nothing_is_said_of_it(tiny_llama: Path, tmp_path: Path) -> None:
    model = tiny_gpt2(tiny_llama, tmp_path / "gpt2", **dict.fromkeys(RATES, 0.0))
    report = printed(*arguments(model), cwd=tmp_path)
    assert report["dropout"] is None
    assert report["grid"][0]["comparison"]["abs_diff_mean"] < 1e-6
    assert report["grid"][0]["diagnosis"]["verdict"] == "at_floor"


@pytest.mark.slow
def test_the_terminal_leads_with_it(tiny_llama: Path, tmp_path: Path) -> None:
    done = run(*arguments(tiny_gpt2(tiny_llama, tmp_path / "gpt2")), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    named = said.index("The model has dropout (attn 0.1, embd 0.1, resid 0.1) and the trainer runs")
    assert named < said.index("Bug-like") and "is its draw; without it" in said
