"""A decoder's cache of the tokens so far: one cache for each layer, and operations on all layers at once."""

from miniwin.blocks.cache.decoder_cache import Cache
from miniwin.blocks.cache.growing import GrowingCache, Int8Cache
from miniwin.blocks.cache.layer_cache import LayerCache, storage, storage_dtype
from miniwin.blocks.cache.ring import RingCache
from miniwin.blocks.cache.split import SplitCache

__all__ = ["Cache", "GrowingCache", "Int8Cache", "LayerCache", "RingCache", "SplitCache", "storage", "storage_dtype"]
