"""What a decoder remembers of the tokens so far: a cache for each layer, and what is done to all of them at once."""

from miniwin.blocks.cache.decoder_cache import Cache
from miniwin.blocks.cache.layers import GrowingCache, Int8Cache, LayerCache, RingCache, storage, storage_dtype

__all__ = ["Cache", "GrowingCache", "Int8Cache", "LayerCache", "RingCache", "storage", "storage_dtype"]
