"""Bring models in: Hugging Face folders, GGUF files, and the MiniWin authors' and MiniMind's checkpoints.

opening                  a folder or a file, opened by what it is
source, hf_folder, pth   reading what may come from anywhere, without running any of it
gguf/                    likewise: metadata as the config, quantised tensors as Hugging Face's
licence                  what the weights may be used for, as the source says it
asked                    what the source does not say: given by the user, or inferred from shapes
family, families/        how the config and the tensor names of each family become ours, and back
plan, carrying           which of their tensors make which of ours; the tokenizer that is carried over
converting, writing      the whole import, and the folder that it writes
"""

from __future__ import annotations

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.converting import Imported, import_model
from miniwin.zoo.importing.opening import open_source
from miniwin.zoo.importing.source import Source

__all__ = ["Asked", "Imported", "Source", "import_model", "open_source"]
