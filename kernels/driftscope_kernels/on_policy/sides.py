"""The two models of a TRL trainer whose engine is in its process: its own and vLLM's."""

from __future__ import annotations

from typing import Any


def trainer_model(trainer: Any) -> Any:
    """The transformers model that is trained, adapters of PEFT's around it."""
    return trainer.accelerator.unwrap_model(trainer.model)


def causal_model(model: Any) -> Any:
    """Without what PEFT puts around it: the model that has a backbone and a head."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def engine_model(trainer: Any) -> Any:
    """The model that vLLM computes with, where trl/generation/vllm_generation.py writes weights."""
    worker = trainer.vllm_generation.llm.llm_engine.model_executor.driver_worker
    return worker.model_runner.model
