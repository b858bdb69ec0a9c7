"""Controlled: causes that no data of a step can name, because a control alone tells them.

In: nothing. Out: their rows of the catalogue, without a detector. Data call them rounding of too
large a size, or a cause that looks alike; `driftscope diagnose` runs what settles them.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.plots import noise_by_length, noise_by_sequence

CAUSES = (
    Cause(
        name="batch_variant_engine",
        title="the engine's values depend on what it runs together",
        level="arithmetic",
        mechanism="Kernels choose tiles, splits and paths by the number of rows, so that one "
        "request's values change with its neighbours.",
        signature="Rounding of too large a size, in all positions; other neighbours give other "
        "values.",
        remedy="Run the engine in its batch-invariant mode (VLLM_BATCH_INVARIANT=1 on GPUs), or "
        "accept it as part of the floor and truncate importance weights.",
        next_control="Send the same prompts with the same seeds one at a time: the values must not "
        "change.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="batch_variant_trainer",
        title="the trainer's values depend on its micro-batch",
        level="arithmetic",
        mechanism="Kernels and attention take other paths for several rows, or for padded ones, "
        "than for one sequence.",
        signature="Rounding of too large a size; the same step scored with another micro-batch "
        "gives other values.",
        remedy="Score with the micro-batch that training uses, or with batch-invariant kernels.",
        next_control="Score the step with a micro-batch of 1 and with the usual one: they must "
        "agree.",
        detect=None,
        plot=noise_by_sequence,
    ),
    Cause(
        name="prefill_vs_decode_kernel",
        title="the engine's decode steps compute something else than its prefill",
        level="arithmetic",
        mechanism="Decode and prefill run different kernels: paged attention against a fused one, "
        "a recurrent step against a chunked scan.",
        signature="From the first response token on, all sequences alike; the engine's own "
        "prefill of the same tokens gives other values.",
        remedy="Choose kernels whose decode and prefill agree, and report it with both values.",
        next_control="Let the same engine read prompt and response as a prompt: its values must "
        "be those of the decode.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="cascade_attention",
        title="attention to a shared prefix is merged with too much error",
        level="arithmetic",
        mechanism="Cascade attention computes a long prefix that many requests share once and "
        "merges it with the rest; on A100, L20 and B200 this has been seen to be wrong.",
        signature="Large batches with a long shared prompt and long outputs.",
        remedy="Start the engine with disable_cascade_attn=True.",
        next_control="Roll out once with disable_cascade_attn=True, or one request at a time.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="attention_backend_diff",
        title="the attention kernels of the two sides differ by more than rounding",
        level="arithmetic",
        mechanism="Another backend, or another path of one, sums or rounds otherwise: a split over "
        "keys, a fused softmax in a short dtype.",
        signature="Rounding of too large a size that grows with the context.",
        remedy="Use the same attention on both sides (attention_backend, attn_implementation), or "
        "the one that stays at the floor.",
        next_control="Run each side once with another attention backend: one of them brings the "
        "difference to the floor.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="compile_or_cudagraph_mode",
        title="the compiled engine computes something else than the eager one",
        level="arithmetic",
        mechanism="torch.compile fuses and reorders operations, and CUDA graphs run padded "
        "batches; a faulty fusion or a stale graph stays in all steps.",
        signature="Rounding of too large a size; the same in each run of one mode.",
        remedy="Run eagerly (enforce_eager=True) until the fusion is found, or without the pass.",
        next_control="Roll out once with enforce_eager=True: the difference falls to the floor.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="autotune_per_launch",
        title="each launch of the engine computes something else",
        level="arithmetic",
        mechanism="Autotuning measures at start which kernel is fastest; another launch or another "
        "replica chooses another one.",
        signature="Equal inside one launch, different between launches and replicas.",
        remedy="Pin the tactics: a cache of the autotuner that all replicas load, or autotuning "
        "off.",
        next_control="Start the engine again and read the same tokens: the values must have the "
        "same bits.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="rmsnorm_cast_order",
        title="norms cast before the weight on one side and after it on the other",
        level="arithmetic",
        mechanism="transformers rounds to the short dtype before it multiplies by the weight, some "
        "kernels after it.",
        signature="Rounding, somewhat larger than it need be, in every layer.",
        remedy="Use the same norm on both sides.",
        next_control="Score once with norms that cast in the other order.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="router_precision",
        title="the router runs in a short dtype on one side",
        level="arithmetic",
        mechanism="Logits or biases of the router in bf16 make near ties, which the other side "
        "decides otherwise.",
        signature="As flips of routes: isolated large tokens on a mixture of experts.",
        remedy="Run the router in float32 on both sides, and replay the engine's routes.",
        next_control="Score once with the engine's routes replayed, and print the dtype of both "
        "routers.",
        detect=None,
        plot=noise_by_length,
        alike=("moe_routing_flip",),
    ),
    Cause(
        name="ssm_state_dtype",
        title="a recurrent state is kept in too few bits, or lost between chunks",
        level="context",
        mechanism="State-space and linear-attention layers carry a state from chunk to chunk; a "
        "short dtype or a wrong hand-over shows from the first chunk's edge on.",
        signature="Hybrid models only; prompts longer than a chunk, from the first decoded token "
        "on.",
        remedy="Keep the state in float32 (mamba_ssm_cache_dtype=float32), or read prompts whole.",
        next_control="Roll out once with prompts read in one chunk.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="lora_lm_head_dropped",
        title="the engine's prompt log-probabilities leave out the adapter of the head",
        level="weights",
        mechanism="Prompt log-probabilities take another path to the logits than sampling does, "
        "without the adapter's part of lm_head.",
        signature="Values read as a prompt differ by nats from those of the same sampled tokens.",
        remedy="Use the values that come with the sampled tokens, or merge the adapter.",
        next_control="Compare sampled values with prompt_logprobs of the same tokens in the same "
        "engine.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="reload_alias",
        title="a tied or packed copy of a tensor stays old in a reload",
        level="weights",
        mechanism="The engine keeps a second copy (lm_head packed for the CPU, tied to the "
        "embedding) that loading into the first one does not reach.",
        signature="Clean until the first sync of weights, then as with older weights in the head.",
        remedy="Restart the engine with the new weights, or pack the copy again after each load.",
        next_control="Reload the same weights and compare the outputs, then with a fresh start.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="corrupt_reload_moe_layout",
        title="a reload leaves weights in another layout or scaled twice",
        level="weights",
        mechanism="What is done to weights once after loading (shuffles of experts, scales, "
        "packing) is left out or done again when they are loaded into a running engine.",
        signature="Clean until the first sync of weights, then gross; a fresh start is clean.",
        remedy="Restart the engine for each update, or use a version whose reload processes "
        "weights as its start does.",
        next_control="Reload the same weights twice and compare the outputs: they must not change.",
        detect=None,
        plot=noise_by_length,
    ),
    Cause(
        name="other_checkpoint",
        title="the engine serves another checkpoint than the trainer trains",
        level="weights",
        mechanism="A path, a revision or a base model is another one on the engine's side: weights "
        "that were never a step of this run.",
        signature="As with stale weights, from the first step on.",
        remedy="Load the engine from the trainer's own folder, and compare checksums at the start.",
        next_control="Start the engine on the trainer's weights: clean; score with each older "
        "step: none brings the difference to the floor.",
        detect=None,
        plot=noise_by_length,
    ),
)
