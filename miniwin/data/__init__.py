"""Data: from a source named in YAML to deterministic batches of token ids.

`prepare` tokenises a source once into memory-mapped files. `batch_at` and `loader` cut batches from these files.
`associative_recall` makes the examples that recall is measured with.
"""

from __future__ import annotations

from miniwin.data.batches import batch_at, document_numbers, loader, windows_per_epoch
from miniwin.data.corpus import Corpus
from miniwin.data.preparing import prepare
from miniwin.data.tasks import associative_recall

__all__ = ["Corpus", "associative_recall", "batch_at", "document_numbers", "loader", "prepare", "windows_per_epoch"]
