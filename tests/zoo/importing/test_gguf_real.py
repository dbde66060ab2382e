"""Two real GGUF files, read by us and by transformers: the same ids, logits, greedy text and conversation.

Gemma is slow, since transformers reads its vocabulary of 262,144 tokens several times. It runs where MINIWIN_TEST_SLOW
is set: `MINIWIN_TEST_SLOW=1 pytest tests/zoo/importing/test_gguf_real.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from real_models import real_model

from miniwin import load
from miniwin.chat.format import read_chat_format
from miniwin.language_model import LanguageModel
from miniwin.zoo.exporting.gguf_file import export_gguf

SLOW = pytest.mark.skipif(
    not os.environ.get("MINIWIN_TEST_SLOW"), reason="slow: a minute and 3 GB; runs where MINIWIN_TEST_SLOW is set"
)
PROMPT = "The capital of France is"
TEXTS = (
    "Hello, world! It's 1984 already; isn't it?",
    "  two  spaces,\n\n\ttabs\nand   more \n",
    "def f(x):\n    return x ** 2  # caf\u00e9, na\u00efve, \u4f60\u597d, \U0001f600\n",
    "",
)
# The import, and the most memory that it took in MB beyond what Python and torch take.
IMPORT = """
import resource, sys, torch
from miniwin.zoo.importing import import_model
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = most()
import_model(sys.argv[1], sys.argv[2])
print(most() - before)
"""


class Read:
    """One file as we read it and as transformers does."""

    def __init__(self, path: Path, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.path, self.folder = path, folder / "imported"
        done = subprocess.run(
            [sys.executable, "-c", IMPORT, str(path), str(self.folder)], capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stderr
        self.megabytes = float(done.stdout)
        self.ours: LanguageModel = load(str(self.folder))
        where: dict[str, Any] = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        self.theirs = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(**where)


@pytest.fixture(scope="module", params=["smollm2", pytest.param("gemma3", marks=SLOW)])
def read(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    pytest.importorskip("gguf")
    folder = tmp_path_factory.mktemp(request.param)
    yield Read(real_model(request.param), folder)
    shutil.rmtree(folder)  # half a GB


@torch.inference_mode()
def test_ids_logits_and_greedy_text_are_theirs(read: Read) -> None:
    assert read.ours.tokenizer is not None
    for text in (PROMPT, *TEXTS):
        assert read.ours.tokenizer.encode_prompt(text) == read.tokenizer(text)["input_ids"], text
    ids = torch.tensor([read.ours.tokenizer.encode_prompt(f"{PROMPT} {TEXTS[2]}")])
    assert (read.ours(ids) - read.theirs(ids).logits).abs().max() < 2e-3
    begin = read.ours.tokenizer.encode_prompt(PROMPT)
    theirs = read.theirs.generate(torch.tensor([begin]), max_new_tokens=64, do_sample=False)[0, len(begin) :].tolist()
    ours = read.ours.generate(begin, max_new_tokens=64, temperature=0)
    assert ours == theirs[: len(ours)]
    assert len(ours) == 64 or theirs[len(ours)] in read.ours.ends


def test_the_record_says_what_the_file_was(read: Read) -> None:
    record = json.loads((read.folder / "import.json").read_text())
    assert record["kind"] == "gguf" and list(record["files"]) == [read.path.name]
    assert sum(record["quantization"].values()) > 200 and record["quantization"]["F32"] > 50
    size = (read.folder / "model.safetensors").stat().st_size / 1024**2
    assert read.megabytes < size, "the weights are read in pieces"


def test_a_conversation_is_rendered_as_theirs(read: Read) -> None:
    made = read_chat_format(read.folder)
    if made is None:
        assert read.tokenizer.chat_template is None, "a base model has none"
        return
    chat = [{"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye"))]
    for more in (True, False):
        theirs = read.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=more)
        assert made.render(chat, add_generation_prompt=more) == theirs
    assert read.tokenizer.eos_token in made.end_tokens


def test_llama_cpp_reads_ours(read: Read, tmp_path: Path) -> None:
    """The file that we export gives the same greedy text in llama.cpp, where its Python package is installed.

    `CMAKE_ARGS=-DGGML_NATIVE=OFF pip install llama-cpp-python` compiles it, for twenty minutes of one core. From
    another environment its folders llama_cpp and diskcache may be linked into a folder that PYTHONPATH names.
    """
    llama_cpp = pytest.importorskip("llama_cpp")
    path = export_gguf(read.ours, tmp_path / "ours.gguf", "float32").path
    theirs = llama_cpp.Llama(model_path=str(path), n_ctx=256, verbose=False)
    assert read.ours.tokenizer is not None
    begin = read.ours.tokenizer.encode_prompt(PROMPT)
    assert theirs.tokenize(PROMPT.encode(), add_bos=True, special=True) == begin
    ours = read.ours.generate(begin, max_new_tokens=32, temperature=0)
    assert list(islice(theirs.generate(begin, temp=0.0), len(ours))) == ours
