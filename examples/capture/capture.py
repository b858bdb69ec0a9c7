# Writes what a PyTorch model computes, for `driftscope explain --dumps A B`: docs/capture.md.
import inspect
import json
import os
import re
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

MODULES = r"(norm|proj|linear_\w+|\.attn|core_attention|embed\w*|gate|router|experts|head|layer)$"
ROWS = {"input_ids", "positions", "position_ids", "attention_mask"}


@contextmanager
def capture(model: Any, to: str, modules: str = MODULES, functions: Any = ()) -> Any:
    """Each forward pass of `model` becomes one file. `functions`: ops that are no modules, each as
    (its module, its name, names of results that are [batch, heads, tokens, size])."""
    path = Path(to) / f"rank{os.environ.get('RANK', '0')}"  # torchrun's, a number
    path.mkdir(parents=True)  # fails where it exists: passes of two captures would mix
    about: Any = {"config": getattr(getattr(model, "config", None), "to_dict", dict)()}
    (path / "capture.json").write_text(json.dumps(about, default=str))
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, *hooked: Any) -> None:
        for end, one in enumerate(hooked[-1]) if type(hooked[-1]) is tuple else [("", hooked[-1])]:
            if isinstance(one, torch.Tensor):
                copy = one.detach().to("cpu", copy=True).contiguous()
                kept.setdefault(f"{name}.{end}".rstrip("."), copy)

    def begin(_: Any, args: Any, kwargs: Any) -> None:
        kept.clear()  # of what backward computed once more
        given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
        for name in ROWS & given.keys():
            keep(name, given[name])

    def called(original: Any, names: Any, *args: Any, **kwargs: Any) -> Any:
        layer, results = re.findall(r"[.](\d+)[.]", list(kept)[-1])[0], original(*args, **kwargs)
        for name, value in zip(names, results, strict=False):
            keep(f"{layer}.{name}", value.transpose(1, 2).flatten(2))
        return results

    def save(*_: Any) -> None:
        save_file(kept, path / f"{len(os.listdir(path)):06}.safetensors")

    with ExitStack() as undo:  # a hook that it leaves is removed
        enter = undo.enter_context
        enter(model.register_forward_pre_hook(begin, with_kwargs=True))
        for name, module in model.named_modules():
            if re.search(modules, name):
                enter(module.register_forward_pre_hook(partial(keep, f"{name}.inputs")))
                enter(module.register_forward_hook(partial(keep, f"{name}.output")))
        enter(model.register_forward_hook(save))
        for owner, name, results in functions:
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, partial(called, getattr(owner, name), results))
        yield
