"""Text to token ids and back: bytes by default, any Hugging Face `tokenizer.json` otherwise.

The byte tokenizer has 256 ids, id = byte. Between documents stands a separator: byte 0, which text never holds, or the
end-of-document token of a Hugging Face tokenizer. Loss is compared across tokenizers in bits per byte, so a tokenizer
says how many UTF-8 bytes each id stands for. A separator counts as one byte everywhere.

    interface.py      what everything else asks of a tokenizer
    byte.py           id = byte
    hugging_face.py   tokenizer.json
    imported.py       tokenizer.json of an imported model, whose prompts are read as transformers reads them
    special_ids.py    where an imported model's texts begin and end
    loading.py        load_tokenizer: from a file or a folder to one of these
    stream.py         text from ids that come one at a time
    safety.py         what a tokenizer.json from anywhere may hold; regex_safety.py: its regular expressions
"""

from miniwin.tokenizer.byte import ByteTokenizer
from miniwin.tokenizer.hugging_face import HFTokenizer
from miniwin.tokenizer.imported import ImportedTokenizer
from miniwin.tokenizer.interface import Tokenizer
from miniwin.tokenizer.loading import load_tokenizer
from miniwin.tokenizer.stream import StreamDecoder

__all__ = ["ByteTokenizer", "HFTokenizer", "ImportedTokenizer", "StreamDecoder", "Tokenizer", "load_tokenizer"]
