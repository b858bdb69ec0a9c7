"""GRPO by TRL with the mixins of driftscope: what a mode changes, and what is read back."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import httpx
import torch
from datasets import Dataset
from examples.on_policy_loop.full_vocabulary import same_over_the_vocabulary
from examples.on_policy_loop.loop import LoopResult, LoopSettings, LoopStep
from examples.on_policy_loop.master_weights import MasterWeightsAdamW
from examples.on_policy_loop.modes import TRUNCATED_AT
from examples.on_policy_loop.planted import plant
from examples.on_policy_loop.policy import Policy, make_policy
from trl import GRPOConfig, GRPOTrainer

from driftscope_client import DriftscopeClient
from driftscope_client.adapters.trl import DriftscopeMixin
from driftscope_kernels.on_policy.trl import LoadableMixin, OnPolicyMixin

#: A batch is two prompts, so that a step takes a second and groups are of eight, as usual.
BATCH, GENERATIONS = 16, 8
CONTEXT = 256


class _Watched(DriftscopeMixin):
    """Looks at whole distributions every few steps, while both sides hold the same weights."""

    look_every = 0

    def _generate_and_score_completions(self: Any, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        step = self.state.global_step
        if self.look_every and step % self.look_every == 0:
            self.looked_at[step] = same_over_the_vocabulary(self, batch)
        return batch


class ExactTrainer(_Watched, OnPolicyMixin, GRPOTrainer):  # type: ignore[misc]
    pass


class StockTrainer(_Watched, LoadableMixin, GRPOTrainer):  # type: ignore[misc]
    pass


def train(settings: LoopSettings, folder: Path, address: str, run: str) -> LoopResult:
    torch.set_num_threads(1)
    dtype: torch.dtype = getattr(torch, settings.mode.dtype)
    policy = make_policy(settings.model, folder / "policy", dtype, settings.seed)
    client = DriftscopeClient(
        url=address, run=run, attempt=str(uuid.uuid4()), queue_size=max(8, settings.steps)
    )
    trainer = _trainer(settings, policy, folder)
    trainer.driftscope = client
    trainer.look_every, trainer.looked_at = settings.full_vocabulary_every, {}
    if settings.fault is not None:
        plant(trainer, settings.fault, settings.fault_at)
    trainer.train()
    if client.failed or client.dropped:
        raise SystemExit(f"{client.failed} steps failed, {client.dropped} were dropped")
    steps = _steps(trainer, _record(address, run))
    return LoopResult(settings.mode.name, run, settings.model, _digest(policy.model), steps)


def _trainer(settings: LoopSettings, policy: Policy, folder: Path) -> Any:
    rows = max(1, settings.steps) * BATCH
    prompts = [policy.prompts[row % len(policy.prompts)] for row in range(rows)]
    kind = ExactTrainer if settings.mode.exact else StockTrainer
    return kind(
        model=policy.model,
        processing_class=policy.tokenizer,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        reward_funcs=policy.reward,
        optimizers=(MasterWeightsAdamW(policy.model.parameters(), settings.learning_rate), None),
        args=GRPOConfig(
            output_dir=str(folder / "output"),
            use_cpu=True,
            bf16=False,  # the model is in its dtype; autocast would compute in another
            seed=settings.seed,
            max_steps=settings.steps,
            lr_scheduler_type="constant",
            per_device_train_batch_size=settings.micro_batch,
            gradient_accumulation_steps=BATCH // settings.micro_batch,
            num_generations=GENERATIONS,
            num_iterations=settings.iterations,
            max_completion_length=settings.completion_tokens,
            gradient_checkpointing=False,
            use_vllm=True,
            vllm_mode="colocate",
            vllm_gpu_memory_utilization=0.3,
            vllm_max_model_length=CONTEXT,
            vllm_importance_sampling_correction=settings.mode.corrected,
            vllm_importance_sampling_mode="token_truncate",
            vllm_importance_sampling_clip_max=TRUNCATED_AT,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
    )


#: Of the service's series.
RECORDED = ("kl_k3", "abs_diff_max", "abs_diff_mean")
TRLS_OWN = "sampling/sampling_logp_difference/mean"


def _record(address: str, run: str) -> dict[int, dict[str, Any]]:
    """What the service has of each step."""
    path, query = f"/v1/runs/{run}/steps", {"metrics": ",".join(RECORDED), "limit": "10000"}
    with httpx.Client(base_url=address) as http:
        answer = http.get(path, params=query).raise_for_status().json()
    found = {}
    for point in answer["steps"]:
        verdict = point["verdict"] or {}
        found[point["step"]] = {**point["values"], "cause": verdict.get("cause")}
    return found


def _steps(trainer: Any, record: dict[int, dict[str, Any]]) -> tuple[LoopStep, ...]:
    logs = {log["step"]: log for log in trainer.state.log_history if "reward" in log}
    steps = []
    for number in range(trainer.state.global_step):
        # TRL logs a step when it has ended, under the number of the next.
        log, measured = logs.get(number + 1, {}), record.get(number, {})
        steps.append(
            LoopStep(
                step=number,
                kl_k3=measured.get("kl_k3"),
                abs_diff_max=measured.get("abs_diff_max"),
                abs_diff_mean=measured.get("abs_diff_mean"),
                cause=measured.get("cause"),
                reward=log.get("reward"),
                grad_norm=log.get("grad_norm"),
                entropy=log.get("entropy"),
                step_s=log.get("step_time"),
                trl_abs_diff_mean=log.get(TRLS_OWN),
                full_vocabulary_equal=trainer.looked_at.get(number),
            )
        )
    return tuple(steps)


def _digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for _, weight in sorted(model.named_parameters()):
        bits = torch.int32 if weight.element_size() == 4 else torch.int16
        digest.update(weight.detach().contiguous().view(bits).numpy().tobytes())
    return digest.hexdigest()
