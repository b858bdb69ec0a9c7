"""Controls trainer_microbatch_one and trainer_padding_sides: the trainer against itself."""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import TrainerChange, gap_of


def _microbatch_one(bench: Bench) -> Measurement:
    _check_shared(bench)
    alone = TrainerChange(settings=(("micro_batch", 1),))
    sequences = bench.sample().sequences
    gap = gap_of(bench.score(sequences, alone), bench.score(sequences))
    return bench.agree(gap, "trainer, one sequence per micro-batch against as many as it takes")


def _padding_sides(bench: Bench) -> Measurement:
    _check_shared(bench)
    trainer = bench.sides.trainer
    sequences = bench.sample().sequences
    pairs = zip(sequences.prompts, sequences.responses, strict=True)
    lengths = {len(prompt) + len(response) for prompt, response in pairs}
    if trainer.batching == "packed" or len(lengths) < 2:
        raise NotExercised(
            "nothing is padded: the trainer packs, or all sequences have one length.",
            remedy="give prompts of several lengths to a trainer whose batching is padded.",
        )
    other = "left" if trainer.padding_side == "right" else "right"
    turned = TrainerChange(settings=(("padding_side", other),))
    gap = gap_of(bench.score(sequences), bench.score(sequences, turned))
    return bench.agree(gap, f"trainer, padded {other} against {trainer.padding_side}")


def _check_shared(bench: Bench) -> None:
    """Raises NotExercised where every sequence has a micro-batch of its own as it is."""
    if bench.sides.trainer.micro_batch == 1 or len(bench.sides.prompts) == 1:
        raise NotExercised(
            "the trainer scores one sequence at a time as it is, so that none has neighbours.",
            remedy="set the trainer's micro_batch to what your training run uses.",
        )


TRAINER_MICROBATCH_ONE = Control(
    name="trainer_microbatch_one",
    title="Let the trainer score one sequence at a time",
    separates="A trainer whose values depend on what shares its micro-batch (another kernel for "
    "another row count, padding or neighbours that are attended) from one that only differs from "
    "the engine.",
    null="The same values but for the rounding of other row counts: sigma up to 0.01 in bf16, "
    "1.1e-6 in fp32 (tiny Llama and MoE, 1 against 4, 40 pairs).",
    cost_s=0.5,
    positive="dirty",
    points_to={
        "batch_variant_trainer": 0.97,
        "packed_attention_leak": 0.95,
        "packed_state_leak": 0.95,
        "pad_attended": 0.9,
        # Other shapes draw other random numbers.
        "dropout_active": 0.9,
        # Near ties fall the other way in another product.
        "moe_routing_flip": 0.4,
        "router_precision": 0.4,
        "bf16_rounding_tail": 0.1,
    },
    run=_microbatch_one,
)

TRAINER_PADDING_SIDES = Control(
    name="trainer_padding_sides",
    title="Pad the trainer's micro-batches on the other side",
    separates="Padding that is attended to from other ways in which a micro-batch changes values: "
    "as many rows, as many tokens, and only the place of the padding moves.",
    null="The same values but for rounding: sigma up to 0.01 in bf16, 9e-7 in fp32 (tiny Llama and "
    "MoE, 24 pairs).",
    cost_s=0.5,
    positive="dirty",
    points_to={
        # A causal trainer sees padding on the left alone.
        "pad_attended": 0.95,
        "batch_variant_trainer": 0.1,
        # Other tokens get the draws of the same shape.
        "dropout_active": 0.9,
        "moe_routing_flip": 0.4,
        "router_precision": 0.4,
    },
    run=_padding_sides,
)
