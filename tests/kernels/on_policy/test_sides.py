"""The models within a trainer, whatever accelerate and PEFT put around the one that is trained."""

from __future__ import annotations

from types import SimpleNamespace

from driftscope_kernels.on_policy.sides import causal_model, engine_model, trainer_model


def test_wrappers_are_taken_off() -> None:
    causal = SimpleNamespace()
    adapted = SimpleNamespace(get_base_model=lambda: causal)
    wrapped = SimpleNamespace(module=adapted)
    trainer = SimpleNamespace(
        model=wrapped, accelerator=SimpleNamespace(unwrap_model=lambda model: model.module)
    )
    assert trainer_model(trainer) is adapted
    assert causal_model(adapted) is causal
    assert causal_model(causal) is causal


def test_the_engines_model_is_the_one_that_trl_writes_to() -> None:
    engine = SimpleNamespace()
    runner = SimpleNamespace(model_runner=SimpleNamespace(model=engine))
    executor = SimpleNamespace(driver_worker=runner)
    llm = SimpleNamespace(llm_engine=SimpleNamespace(model_executor=executor))
    assert engine_model(SimpleNamespace(vllm_generation=SimpleNamespace(llm=llm))) is engine
