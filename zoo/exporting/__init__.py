"""Export models: to a folder that Hugging Face's transformers loads."""

from miniwin.zoo.exporting.folder import Exported, export_model
from miniwin.zoo.exporting.stock import Refusal, Stock, find_stock

__all__ = ["Exported", "Refusal", "Stock", "export_model", "find_stock"]
