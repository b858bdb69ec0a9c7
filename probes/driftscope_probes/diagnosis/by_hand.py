"""By hand: every control in the words of the user's own framework. Free of torch.

In: the name of a control and, where it is known, a framework. Out: the option to set, or what to do
where the framework has none, and how to read what comes of it.

Options were read in the sources of vLLM 0.32, TRL 1.16 (both installed with this repository), verl
0.9 (trainer/config/rollout/rollout.yaml, actor), NeMo-RL (examples/configs/grpo_math_1B.yaml),
slime (slime/utils/arguments.py; `--sglang-X` is SGLang's `--X`, the rest is Megatron's) and
prime-rl (configs/inference.py, configs/trainer.py) in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Framework = Literal["vllm", "verl", "trl", "nemo-rl", "slime", "prime-rl"]
FRAMEWORKS: Final[tuple[Framework, ...]] = get_args(Framework)
#: A control changes one setting for one step, or asks the same twice.
Look = Literal["gap", "twice"]
#: How an outcome is read, by what is looked at.
READ: Final[Mapping[Look, str]] = {
    "gap": "clean: the difference is gone, or most of it; dirty: it stays.",
    "twice": "clean: both runs give the same values, up to rounding; dirty: they do not.",
}

_ROLLOUT: Final = "actor_rollout_ref.rollout"
_ACTOR: Final = "actor_rollout_ref.actor"
_MODEL: Final = "actor_rollout_ref.model"
_NEMO_VLLM: Final = "policy.generation.vllm_cfg"
_NEMO_KWARGS: Final = "++policy.generation.vllm_kwargs"
#: A step that leaves the weights as they are.
_NO_LEARNING: Final[Mapping[Framework, str]] = {
    "verl": f"{_ACTOR}.optim.lr=0",
    "trl": "GRPOConfig(learning_rate=0.0)",
    "nemo-rl": "policy.optimizer.kwargs.lr=0",
    "slime": "--lr 0",
    "prime-rl": "[trainer.optim] lr = 0.0",
}
_PREFILL: Final = (
    "Send prompts and responses back as a prompt and ask for the log-probabilities of its tokens: "
    'vLLM: "max_tokens": 1, "prompt_logprobs": 0; SGLang: "return_logprob": true with '
    '"logprob_start_len" at the end of the prompt. '
)


@dataclass(frozen=True, slots=True)
class ByHand:
    otherwise: str  # what to do where a framework has no option
    look: Look = "gap"
    options: Mapping[Framework, str] = field(default_factory=dict)

    def how(self, framework: Framework) -> str:
        return self.options.get(framework, self.otherwise)


BY_HAND: Final[Mapping[str, ByHand]] = {
    "engine_batch_of_one": ByHand(
        "Send the same prompts again with the same seeds, one request at a time, and compare the "
        "values of the tokens that are the same.",
        "twice",
        {
            "vllm": "--max-num-seqs 1",
            "verl": f"{_ROLLOUT}.max_num_seqs=1",
            "nemo-rl": f"{_NEMO_KWARGS}.max_num_seqs=1",
            "slime": "--sglang-max-running-requests 1",
            "prime-rl": "[inference.vllm_extra] max_num_seqs = 1",
        },
    ),
    "decode_reprefill": ByHand(
        _PREFILL + "Compare them with those that came with the sampled tokens.", "twice"
    ),
    "whole_prefill": ByHand(
        "Let the engine read a prompt in one piece: raise its tokens per step above the longest "
        "prompt, or send shorter prompts than that.",
        options={
            "vllm": "--no-enable-chunked-prefill --max-num-batched-tokens LONGEST_SEQUENCE",
            "verl": f"{_ROLLOUT}.enable_chunked_prefill=False "
            f"{_ROLLOUT}.max_num_batched_tokens=LONGEST_SEQUENCE",
            "nemo-rl": f"{_NEMO_KWARGS}.enable_chunked_prefill=false",
            "slime": "--sglang-chunked-prefill-size -1",
            "prime-rl": "[inference.vllm_extra] enable_chunked_prefill = false",
        },
    ),
    "prefix_cache_off": ByHand(
        "Turn the engine's prefix cache off, or reset it after every update of the weights "
        "(vLLM: POST /reset_prefix_cache).",
        options={
            "vllm": "--no-enable-prefix-caching",
            "verl": f"{_ROLLOUT}.enable_prefix_caching=False",
            "trl": "trl vllm-serve --enable_prefix_caching False",
            "nemo-rl": f"{_NEMO_KWARGS}.enable_prefix_caching=false",
            "slime": "--sglang-disable-radix-cache",
            "prime-rl": "[inference] enable_prefix_caching = false",
        },
    ),
    "eager": ByHand(
        "Start the engine without compilation and without CUDA graphs.",
        options={
            "vllm": "--enforce-eager",
            "verl": f"{_ROLLOUT}.enforce_eager=True",
            "trl": "trl vllm-serve --enforce_eager True",
            "nemo-rl": f"{_NEMO_VLLM}.enforce_eager=true",
            "slime": "--sglang-disable-cuda-graph",
            "prime-rl": "[inference.model] enforce_eager = true",
        },
    ),
    "attention_backend": ByHand(
        "Serve the model with another attention backend: vllm serve --attention-backend "
        "TRITON_ATTN, to which the trainer connects as to any server.",
        options={
            "vllm": "--attention-backend TRITON_ATTN",
            "verl": f"+{_ROLLOUT}.engine_kwargs.vllm.attention_backend=TRITON_ATTN",
            "nemo-rl": f"{_NEMO_KWARGS}.attention_backend=TRITON_ATTN",
            "slime": "--sglang-attention-backend triton",
            "prime-rl": '[inference.vllm_extra] attention_backend = "TRITON_ATTN"',
        },
    ),
    "kv_cache_auto": ByHand(
        "Keep keys and values in the model's own dtype.",
        options={
            "vllm": "--kv-cache-dtype auto",
            "verl": f"+{_ROLLOUT}.engine_kwargs.vllm.kv_cache_dtype=auto",
            "trl": "trl vllm-serve --kv_cache_dtype auto",
            "nemo-rl": f"{_NEMO_VLLM}.kv_cache_dtype=auto",
            "slime": "--sglang-kv-cache-dtype auto",
            "prime-rl": '[inference.model] kv_cache_dtype = "auto"',
        },
    ),
    "engine_restart": ByHand(
        _PREFILL + "Stop the engine, start it with the same options and weights, and ask again: "
        "the values of the two launches are compared.",
        "twice",
    ),
    "second_replica": ByHand(
        _PREFILL + "Ask two replicas that run at the same time, each by its own address.", "twice"
    ),
    "sleep_wake": ByHand(
        "Ask the engine for the values of the same tokens before and after it slept (vLLM: POST "
        "/sleep and /wake_up with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode), or train one "
        "step without sleep: dirty if the difference is gone.",
        "twice",
        {
            "verl": f"{_ROLLOUT}.free_cache_engine=False; dirty if the difference is gone",
            "trl": "GRPOConfig(vllm_enable_sleep_mode=False); dirty if the difference is gone",
            "slime": "--no-offload-rollout, without --colocate; dirty if the difference is gone",
        },
    ),
    "reload_same_weights": ByHand(
        "Train two steps with learning rate 0: the weights of the second are loaded over equal "
        "ones, and its difference must be that of the first.",
        "twice",
        {
            framework: f"{option}, two steps: the second must be as the first"
            for framework, option in _NO_LEARNING.items()
        },
    ),
    "truncated_prompts": ByHand(
        "Sample from the same prompts cut to multiples of a tile (64, 96, 128 tokens) and one "
        "token beside them: dirty if the difference begins at one of these positions.",
        "twice",
    ),
    "reference_forward": ByHand(
        "Score the step's tokens with transformers in float32 in evaluation mode, one sequence at "
        "a time, with the trainer's weights: dirty if the trainer differs from it by about as much "
        "as from the engine.",
        "twice",
    ),
    "trainer_microbatch_one": ByHand(
        "Score the same sequences one at a time.",
        "twice",
        {
            "verl": f"{_ROLLOUT}.log_prob_micro_batch_size_per_gpu=1 "
            f"{_ROLLOUT}.log_prob_use_dynamic_bsz=False",
            "trl": "GRPOConfig(per_device_train_batch_size=1)",
            "nemo-rl": "policy.logprob_batch_size=1 policy.sequence_packing.enabled=false "
            "policy.dynamic_batching.enabled=false",
            "slime": "--micro-batch-size 1, without --use-dynamic-batch-size",
        },
    ),
    "trainer_padding_sides": ByHand(
        "Score the same batch padded on the left and on the right.",
        "twice",
        {"verl": f"{_MODEL}.use_remove_padding=True: without any padding"},
    ),
    "document_perturbed": ByHand(
        "Score a packed batch twice, with one token of its first document changed: nothing in the "
        "second document may move. Or score the step without packing: dirty if the difference is "
        "gone.",
        "twice",
        {
            "verl": f"{_MODEL}.use_remove_padding=False; dirty if the difference is gone",
            "nemo-rl": "policy.sequence_packing.enabled=false; dirty if the difference is gone",
            "slime": "--micro-batch-size 1, without --use-dynamic-batch-size; dirty if the "
            "difference is gone",
        },
    ),
    "dropout_off": ByHand(
        "Set every dropout of the model's config and of the adapter to 0.",
        options={
            "verl": f"+{_MODEL}.override_config.attention_dropout=0.0",
            "trl": "GRPOConfig(disable_dropout=True)",
            "nemo-rl": "++policy.hf_config_overrides.attention_dropout=0.0",
            "slime": "--attention-dropout 0 --hidden-dropout 0",
            "prime-rl": "[trainer.model.lora] dropout = 0.0",
        },
    ),
    "norm_epsilon": ByHand(
        "Set rms_norm_eps of the trainer's config.json to that of the engine's, and compare the "
        "two files.",
        options={
            "verl": f"+{_MODEL}.override_config.rms_norm_eps=EPSILON_OF_THE_ENGINE",
            "nemo-rl": "++policy.hf_config_overrides.rms_norm_eps=EPSILON_OF_THE_ENGINE",
            "slime": "--norm-epsilon EPSILON_OF_THE_ENGINE",
        },
    ),
    "dtypes_fp32": ByHand(
        "Run both sides in float32 for one step, on a few prompts.",
        options={
            "vllm": "--dtype float32, and the trainer in float32",
            "verl": f"{_ROLLOUT}.dtype=float32 {_ACTOR}.fsdp_config.dtype=float32",
            "trl": "GRPOConfig(bf16=False, fp16=False) and trl vllm-serve --dtype float32",
            "nemo-rl": "policy.precision=float32",
            "slime": "--sglang-dtype float32, without --bf16 and --fp16",
        },
    ),
    "fp32_head_both": ByHand(
        "Compute the logits in float32 on both sides: cast hidden states and lm_head.",
        options={
            "vllm": '--hf-overrides \'{"head_dtype": "float32"}\', and the same in the trainer',
            "trl": "GRPOConfig(cast_lm_head_to_fp32=True) and vllm serve --hf-overrides "
            '\'{"head_dtype": "float32"}\'',
            "slime": "--sglang-enable-fp32-lm-head, and the output layer of Megatron in float32",
        },
    ),
    "fp32_head_trainer": ByHand(
        "Compute the trainer's logits in float32, and leave the engine as it is.",
        options={"trl": "GRPOConfig(cast_lm_head_to_fp32=True)"},
    ),
    "trainer_attention": ByHand(
        "Load the trainer's model with another attention implementation.",
        options={
            "verl": f"+{_MODEL}.override_config.attn_implementation=eager",
            "trl": 'GRPOConfig(model_init_kwargs={"attn_implementation": "eager"})',
            "slime": "--attention-backend unfused",
            "prime-rl": '[trainer.model] attn = "sdpa"',
        },
    ),
    "trainer_repeat": ByHand("Score the same batch twice in the trainer.", "twice"),
    "trainer_weights_in_engine": ByHand(
        "Save the trainer's weights as a Hugging Face folder and start the engine freshly on it.",
        options={
            "vllm": "vllm serve CHECKPOINT_OF_THE_STEP",
            "verl": f"{_MODEL}.path=CHECKPOINT_OF_THE_STEP {_ROLLOUT}.load_format=auto",
            "trl": "trl vllm-serve --model CHECKPOINT_OF_THE_STEP",
            "nemo-rl": "policy.model_name=CHECKPOINT_OF_THE_STEP",
            "slime": "--hf-checkpoint CHECKPOINT_OF_THE_STEP",
            "prime-rl": '[inference.model] name = "CHECKPOINT_OF_THE_STEP"',
        },
    ),
    "older_weights": ByHand(
        "Score the step's tokens with the checkpoints of the steps before it: clean if one of them "
        "gives the engine's values.",
    ),
    "recorded_generation": ByHand(
        "Generate greedily with transformers under the trainer's weights and with the engine: "
        "clean if the first differing token stands where the two best are almost equal.",
        "twice",
    ),
    "weights_rounded": ByHand(
        "Round the trainer's master weights to the engine's dtype before scoring.",
        options={
            "verl": f"{_ACTOR}.fsdp_config.model_dtype=bfloat16",
            "trl": 'GRPOConfig(model_init_kwargs={"dtype": "bfloat16"})',
            "prime-rl": '[trainer.model] optimization_dtype = "bfloat16"',
        },
    ),
    "adapter_off": ByHand(
        "Score the step's tokens with the base model alone: clean if that gives the engine's "
        "values.",
    ),
    "adapter_merged_fp32": ByHand(
        "Merge the adapter in float32 (PEFT: merge_and_unload) and start the engine on that folder."
    ),
    "adapter_unmerged": ByHand(
        "Let the engine apply the adapter itself, unmerged.",
        options={
            "vllm": "--enable-lora --lora-modules NAME=ADAPTER_FOLDER",
            "verl": f"{_MODEL}.lora.merge=False",
            "prime-rl": "[inference] enable_lora = true",
        },
    ),
    "unquantised": ByHand(
        "Start the engine on the model's weights in 16 bits.",
        options={
            "vllm": "vllm serve CHECKPOINT_IN_BF16, without --quantization",
            "verl": f"{_ROLLOUT}.quantization=null",
            "nemo-rl": f"{_NEMO_VLLM}.precision=bfloat16",
            "slime": "--hf-checkpoint CHECKPOINT_IN_BF16, without --sglang-quantization",
            "prime-rl": "[inference.model] without quantization",
        },
    ),
    "routes_replayed": ByHand(
        "Take the experts that the engine chose (vLLM: --enable-return-routed-experts) and let the "
        "trainer use them.",
        options={
            "verl": f"{_ACTOR}.router_replay.mode=R3 {_ROLLOUT}.enable_rollout_routing_replay=True",
            "nemo-rl": "++policy.router_replay.enabled=true",
            "slime": "--use-rollout-routing-replay",
            "prime-rl": "[trainer] enable_router_replay = true",
        },
    ),
}


def instructions(control: str, framework: Framework | None = None) -> dict[str, str]:
    """By framework, or by "any" where it has no option; empty for a control only we can run."""
    entry = BY_HAND.get(control)
    if entry is None:
        return {}
    if framework is not None:
        return {framework: entry.how(framework)}
    return {**{str(name): said for name, said in entry.options.items()}, "any": entry.otherwise}
