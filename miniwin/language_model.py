"""`LanguageModel`: a decoder with its spec and its tokenizer.

model = miniwin.load("miniwin-1m")
logits = model(input_ids)                       # (B, N) ids -> (B, N, V) float32
cache = model.new_cache()
logits = model(input_ids, cache=cache)          # the next call with this cache continues
text = model.generate("def main(", seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import torch
from torch import Tensor, nn

from miniwin.inference import only_calls_the_decoder
from miniwin.specs import UserError

if TYPE_CHECKING:
    from miniwin.blocks import Cache, Decoder
    from miniwin.chat.conversation import Chat
    from miniwin.chat.format import ChatFormat
    from miniwin.generation.settings import Options
    from miniwin.sessions import Session
    from miniwin.specs import ModelSpec
    from miniwin.tokenizer import Tokenizer
    from miniwin.tokenizer.special_ids import SpecialIds


class LanguageModel(nn.Module):
    """A decoder with its spec and tokenizer. `tokenizer` is None for a vocabulary that is not text."""

    def __init__(
        self,
        decoder: Decoder,
        spec: ModelSpec,
        tokenizer: Tokenizer | None,
        ref: str | None = None,
        folder: Path | None = None,
        special: SpecialIds | None = None,
        chat_format: ChatFormat | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.spec = spec
        self.tokenizer = tokenizer
        self.ref = ref if ref is not None else spec.name  # where it came from, as a person would name it
        # Where its weights were read from, whatever the current folder is later; None for random ones.
        self.folder = None if folder is None else folder.resolve()
        self.special = special  # the special ids that an imported model's files name
        self.chat_format = chat_format  # how chats are written for it; None for a model that was not made for chats

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end a text: those that an imported model's files name, or else the document separator."""
        if self.special is not None and self.special.ends:
            return self.special.ends
        separator = None if self.tokenizer is None else self.tokenizer.separator
        return () if separator is None else (separator,)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @only_calls_the_decoder
    def forward(
        self,
        input_ids: Tensor | None = None,  # (B, N) int64
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,  # (B, N) 0/1, left padding only
        logits_to_keep: int = 0,  # the last k positions only; 0: all
        **placed: Tensor,  # inputs_embeds, positions, position_variance: see Decoder.forward
    ) -> Tensor:  # (B, N or k, V) float32
        """Logits of the next token at each position. With a cache the call continues what the cache holds."""
        logits: Tensor = self.decoder(
            input_ids, cache=cache, attention_mask=attention_mask, logits_to_keep=logits_to_keep, **placed
        )
        return logits

    def new_cache(self, batch_size: int = 1, *, dtype: str | torch.dtype | None = None, **options: Any) -> Cache:
        """An empty cache for `batch_size` sequences, on the weights' device and in their dtype, or in `dtype`.

        dtype: float64, float32, bfloat16, float16 or int8. int8 is for the keys and values of global layers, with a
        scale for each head of a token.
        """
        from miniwin.blocks.cache import storage_dtype

        if dtype is not None:
            options["dtype"] = storage_dtype(dtype)
        return self.decoder.new_cache(batch_size, **options)

    @overload
    def generate(
        self,
        prompt: str,
        *,
        stream: Callable[[str], None] | None = ...,
        session: Session | None = ...,
        **settings: Unpack[Options],
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: Sequence[int] | Tensor,
        *,
        stream: Callable[[str], None] | None = ...,
        session: Session | None = ...,
        **settings: Unpack[Options],
    ) -> list[int]: ...

    @overload
    def generate(
        self,
        prompt: list[str] | tuple[str, ...],
        *,
        session: Sequence[Session] | None = ...,
        **settings: Unpack[Options],
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        prompt: Sequence[list[int]],
        *,
        session: Sequence[Session] | None = ...,
        **settings: Unpack[Options],
    ) -> list[list[int]]: ...

    def generate(
        self,
        prompt: str | Sequence[int] | Tensor | list[str] | tuple[str, ...] | Sequence[list[int]],
        *,
        stream: Callable[[str], None] | None = None,
        session: Session | Sequence[Session] | None = None,
        **settings: Unpack[Options],
    ) -> str | list[int] | list[str] | list[list[int]]:
        """Continue `prompt`: new text for text, new ids for ids (a list, or a tensor (N,) or (1, N)).

        A list of prompts gives a list: each prompt is continued as it would be alone. An empty prompt starts a new
        document. [] is one prompt without ids, not a list without prompts. The settings and their defaults:

            max_new_tokens   128    fewer where the model ends the document
            temperature      0.8    0 is greedy
            top_k            0      only the k most probable tokens; 0: all
            top_p            1.0    only the most probable tokens that add up to this; 1: all
            min_p            0.0    only tokens at least this share as probable as the best; 0: all
            stop             ()     a string or several; the text ends before the first of them
            seed             None   the same one gives the same text; without one, every call differs
            cache_dtype      None   what the cache stores, see new_cache
            speculate        None   "lookup", a smaller model with the same tokenizer, or the name of one: guesses
                                    tokens and checks them together, faster where guesses are right. The text has
                                    the same distribution; with lookup a seed gives the same text. For one prompt

        stream: called with each piece of new text. session: the context to continue (miniwin.sessions); for several
        prompts a list with a session for each.
        """
        from miniwin.generation import generate, generate_batch
        from miniwin.sessions import Session

        if isinstance(prompt, list | tuple) and prompt and isinstance(prompt[0], str | list | tuple | Tensor):
            if stream is not None:
                raise UserError("stream: got one with several prompts; it is for a single prompt")
            if isinstance(session, Session):
                raise UserError("session: got a single one with several prompts; expected a list, one for each prompt")
            results = generate_batch(self, prompt, sessions=session, **settings)
            pairs = zip(prompt, results, strict=True)
            return [r.text if isinstance(p, str) else r.ids for p, r in pairs]  # type: ignore[return-value]
        if isinstance(session, list | tuple):
            raise UserError("session: got several with a single prompt; expected one")
        result = generate(self, prompt, stream=stream, session=session, **settings)  # type: ignore[arg-type]
        return result.text if isinstance(prompt, str) else result.ids

    def chat(
        self,
        *,
        system: str | None = None,
        messages: Sequence[Mapping[str, Any]] = (),
        template: str | PathLike[str] | None = None,
        context: int | None = None,
        **settings: Unpack[Options],
    ) -> Chat:
        """A chat with this model through its chat template. `say` gives an answer:

            chat = model.chat(system="Answer in one sentence.")
            chat.say("Why is the sky blue?", stream=print)

        messages: what was said before. template: a file with a chat template, for a model that has none. context:
        tokens of the chat at most; by default what the model's files say. settings: those of `generate`, with
        max_new_tokens 1024.

        Raises:
            UserError: the model has no chat template or no tokenizer, or a setting is wrong.
        """
        from miniwin.chat.conversation import Chat

        return Chat(self, system=system, messages=messages, template=template, context=context, **settings)

    def extra_repr(self) -> str:
        return f"ref={self.ref!r}, layout={self.spec.layout!r}"
