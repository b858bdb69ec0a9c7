"""miles: the rollout data of a Megatron rank → one push, or a shard of one.

In: `rollout_data` of train_actor, with slime's names, and miles' args; `step` is the rollout's
number, and every rank has its own responses, a shard. Out: nothing; the push goes through the
client. Written for miles' main branch of September 2026: miles/backends/megatron_utils/actor.py.
Its own --rollout-data-postprocess-path is given the arguments only, so the push is a line beside
it. miles itself is not imported.
"""

from __future__ import annotations

from driftscope_client.adapters import slime
from driftscope_client.adapters.trainer_batch import BatchAdapter

push_batch = BatchAdapter("miles", slime.batch_tensors, slime.settings_of, slime.FIXED).push_batch
