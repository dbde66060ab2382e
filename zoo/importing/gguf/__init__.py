"""GGUF, the files of llama.cpp: one file, or shards, with metadata, tokenizer and weights, quantised or not.

library          the `gguf` package: the types of tensors, how they are quantised, and writing
header           what a file says it holds, read with bounds, since the file may come from anywhere
metadata         the fields of an architecture, by name and type, and which of them were read
rope             rotary parameters in metadata and tensors <-> rope_parameters of a Hugging Face config
names            llama.cpp's names of tensors <-> Hugging Face's, and what llama.cpp changes in the values
architectures    general.architecture <-> model_type of a Hugging Face config, which the families read
pre_tokenizers   how text is split before the merges of a byte-level vocabulary, by llama.cpp's names
tokenizer        metadata -> tokenizer.json
own_config       what MiniWin adds to its own files: every number exactly
source           all of it together, as a source to import from
"""
