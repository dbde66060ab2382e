"""Export models: to a folder that Hugging Face's transformers loads, or to a GGUF file, which llama.cpp loads.

folder, stock, tokenizing               for transformers: as a stock architecture, or with code of ours
gguf_file, gguf_stock, gguf_tokenizer   for llama.cpp
"""

from miniwin.zoo.exporting.folder import Exported, export_model
from miniwin.zoo.exporting.stock import Refusal, Stock, find_stock

__all__ = ["Exported", "Refusal", "Stock", "export_model", "find_stock"]
