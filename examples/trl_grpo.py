"""GRPO with TRL on a model of a few thousand weights, every step pushed: a minute on one core.

What makes it a driftscope run is the mixin; the rest is any GRPO script. transformers' generate()
samples, from the very model that is trained, so the verdict is rounding's. Usage: [STEPS]
"""

import os
import sys
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from driftscope_client import DriftscopeClient
from driftscope_client.adapters.trl import DriftscopeMixin

WORDS = ["<pad>", "<eos>", *"one two three four five six seven eight nine ten".split()]
WANTED = WORDS.index("seven")


class Trainer(DriftscopeMixin, GRPOTrainer):  # type: ignore[misc]
    pass


def model_and_tokenizer() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, "<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, bos_token_id=None, **sizes, **heads
    )
    return LlamaForCausalLM(config), tokenizer


def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
    return [sum(token == WANTED for token in ids) / len(ids) for ids in completion_ids]


def main() -> None:
    client = DriftscopeClient(
        # Ten steps of a toy take a second; the queue of a real run need not hold them all.
        run=os.environ.get("DRIFTSCOPE_RUN", "example-trl"),
        queue_size=1024,
    )
    model, tokenizer = model_and_tokenizer()
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": ["one two", "three four five"] * 4}),
            reward_funcs=reward,
            args=GRPOConfig(
                output_dir=output,
                use_cpu=True,
                bf16=False,
                max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 10,
                per_device_train_batch_size=8,
                num_generations=4,
                max_completion_length=12,
                learning_rate=1e-2,
                gradient_checkpointing=False,
                logging_steps=1,
                save_strategy="no",
                report_to=[],  # "tensorboard", "mlflow", "trackio", "wandb": each gets our numbers
            ),
        )
        trainer.driftscope = client  # without it, DRIFTSCOPE_URL and DRIFTSCOPE_RUN name the run
        trainer.train()
    print(f"pushed {client.pushed}, failed {client.failed}")
    for name, value in client.metrics().items():  # the last step's; TRL's log has every step's
        print(name, f"{value:.6g}")


if __name__ == "__main__":
    main()
