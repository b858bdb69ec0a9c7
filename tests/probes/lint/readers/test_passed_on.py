"""Arguments of vLLM as recipes spell them: switched off by name, passed on by a trainer."""

from __future__ import annotations

from driftscope_probes.lint.readers.registry import read_text


def test_a_switch_that_is_turned_off_by_its_name() -> None:
    known = read_text("args.yaml", "no-enable-prefix-caching: true\nmax-model-len: 4096\n")
    caching = known.get("engine.prefix_caching")
    assert caching is not None and caching.value is False
    assert caching.where == "args.yaml: no-enable-prefix-caching"


def test_the_dtype_of_the_head() -> None:
    known = read_text("s.sh", 'vllm serve a --hf-overrides \'{"head_dtype": "float32"}\'\n')
    assert known.value("engine.fp32_head") is True


def test_a_trainers_words_stand_before_what_it_passes_on() -> None:
    key = "actor_rollout_ref.rollout.engine_kwargs.vllm.enable_prefix_caching"
    (one,) = [
        one
        for one in read_text("run.sh", f"python -m verl.trainer.main_ppo +{key}=False\n")
        if one.name == "engine.prefix_caching"
    ]
    assert (one.value, one.where) == (False, f"run.sh: {key}")
