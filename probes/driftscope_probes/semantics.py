"""What a reader must know before taking a gap for rounding: settings that change its meaning."""

from __future__ import annotations

from driftscope_probes.paired_request import PairedRequest

#: Percentile intervals from resampling are too narrow below this many sequences.
FEW_SEQUENCES = 20


def semantic_notes(request: PairedRequest) -> list[str]:
    """Plain sentences; none where both sides mean the same thing."""
    notes = []
    sampling, engine = request.sampling, request.engine
    truncated = sampling.top_p < 1.0 or sampling.top_k > 0
    processed = engine.logprobs_mode == "processed_logprobs"
    if processed and truncated and sampling.temperature > 0.0:
        notes.append(
            "The engine's log-probabilities are renormalised over the tokens that top-p and top-k "
            "keep, the trainer's are not: the difference carries the logarithm of the mass kept, "
            "and is no measure of rounding. Set top-p 1 and top-k 0, or raw_logprobs."
        )
    if not processed and (truncated or sampling.temperature not in (0.0, 1.0)):
        notes.append(
            "Tokens were drawn with temperature, top-p or top-k, but raw_logprobs are those of the "
            "unscaled model on both sides: comparable, yet not the probabilities of the draw. "
            "Importance ratios need processed_logprobs."
        )
    if sampling.temperature == 0.0:
        notes.append(
            "Greedy decoding picks likely tokens, whose log-probabilities differ least: expect a "
            "smaller gap than in sampling at temperature 1."
        )
    sequences = request.prompts if isinstance(request.prompts, int) else len(request.prompts)
    if request.resamples and sequences < FEW_SEQUENCES:
        notes.append(
            f"Intervals come from resampling {sequences} sequences; below about {FEW_SEQUENCES} "
            "they are too narrow. Give more prompts for figures to rely on."
        )
    if engine.kind == "vllm-server":
        notes.append("The server's dtype and logprobs mode are as declared, not as measured.")
    return notes
