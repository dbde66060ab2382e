"""MiniWin: find and share long-context language-model architectures.

    import miniwin
    model = miniwin.load("miniwin-1m")
    print(model.generate("def main(", max_new_tokens=64))

The public names (everything else is importable from its module, and may move):

    load(ref)              a model in eval mode, from the zoo, a run folder or a spec
    build(spec)            a model with fresh weights
    train(model, train)    train a spec into a run folder, resumable
    evaluate(model, data)  bits per byte by length, recall, speed, cache size
    load_spec(path)        read a model, train, search or suite spec from YAML, with checks
    LanguageModel          what load and build return: a torch module with generate()
    UserError              a mistake the user can mend; the message says how

They are imported on first use: `import miniwin` alone costs nothing, PyTorch included.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from miniwin.quick_imports import nothing_is_garbage
from miniwin.version import __version__

__all__ = ["LanguageModel", "UserError", "__version__", "build", "evaluate", "load", "load_spec", "train"]

_HOME = {
    "LanguageModel": "miniwin.language_model",
    "UserError": "miniwin.specs",
    "build": "miniwin.loading",
    "evaluate": "miniwin.evaluation",
    "load": "miniwin.loading",
    "load_spec": "miniwin.specs",
    "train": "miniwin.training.launch",
}

if TYPE_CHECKING:
    from miniwin.evaluation import evaluate
    from miniwin.language_model import LanguageModel
    from miniwin.loading import build, load
    from miniwin.specs import UserError, load_spec
    from miniwin.training.launch import train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'miniwin' has no attribute {name!r}; it has {', '.join(__all__)}")
    with nothing_is_garbage():
        value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # so that it is looked up once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
