"""`python -m benchmarks.lora_novel`: see the package's docstring."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import miniwin
from benchmarks.lora_novel import __doc__ as usage
from benchmarks.lora_novel.measuring import bits, nats, record, sizes
from benchmarks.lora_novel.novels import chapters, parts
from benchmarks.lora_novel.page import RESULTS, write_page
from benchmarks.machine import described, load
from miniwin.files.hashing import sha256_file
from miniwin.files.json_files import read_json
from miniwin.files.writing import write_json, write_text
from miniwin.runs import TOKENIZER, read_run
from miniwin.specs import UserError, dump_yaml, parse_spec, user_path

RATES, RANK = (3e-4, 1e-3), 16
TOKENS, TRIED = 200_000, 16_384  # of the training, and of each that chooses
SETTINGS = ("seq_len", "batch_size", "optimizer", "schedule", "dtype", "seed", "lora")  # no paths
CHOOSING = 30_000  # bytes of the part for choosing


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lora_novel",
        description=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--page", action="store_true", help="only write README.md")
    for name, what in (("gguf", "the model"), ("novel", "the novel"), ("other", "another novel"), ("work", "a folder")):
        parser.add_argument(f"--{name}", type=user_path, metavar=name.upper(), help=what)
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"to train on; default: {TOKENS:,}")
    parser.add_argument("--tried", type=int, default=TRIED, help="the tokens of each training that chooses")
    options = parser.parse_args(arguments)
    try:
        if not options.page:
            missing = [name for name in ("gguf", "novel", "other", "work") if getattr(options, name) is None]
            if missing:
                raise UserError(f"expected --{' --'.join(missing)}, or --page")
            write_json(RESULTS, measured(options))
        print(write_page())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def measured(options: argparse.Namespace) -> dict[str, Any]:
    began, work, machine = time.monotonic(), options.work, described()
    work.mkdir(parents=True, exist_ok=True)
    learnt, choosing, end = parts(chapters(options.novel))
    other = parts(chapters(options.other))[2]
    for name, texts in (("learnt", learnt), ("choosing", choosing)):
        write_text(work / f"{name}.txt", "".join(texts))
    base = work / "base"
    if not base.exists():
        _miniwin("import", options.gguf, "--to", base)
    some = _first(choosing, CHOOSING)
    tried = []
    for rate in RATES:
        found = bits(of(train(base, work, rate, options.tried), "choosing", some), sizes(some)).value
        tried.append({"lr": rate, "bits_per_byte": round(found, 5)})
    best = min(tried, key=lambda one: one["bits_per_byte"])
    run = train(base, work, best["lr"], options.tokens)
    after = {name: of(run, name, texts) for name, texts in (("end", end), ("other", other))}
    before = {name: of(base, name, texts) for name, texts in (("choosing", some), ("end", end), ("other", other))}
    said = read_run(run)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "load": load(),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "model": {"file": options.gguf.name, "sha256": sha256_file(options.gguf)},
        "novel": {"file": options.novel.name, "sha256": sha256_file(options.novel), "chapters": len(learnt)},
        "other": {"file": options.other.name, "sha256": sha256_file(options.other)},
        "train": {name: said["train"][name] for name in SETTINGS},
        "parameters": said["parameters"],
        "trained_parameters": said["trained_parameters"],
        "choosing": {"bits_per_byte": round(bits(before["choosing"], sizes(some)).value, 5), "tokens": options.tried},
        "tried": tried,
        "training": {
            "tokens": said["tokens"],
            "seconds": said["seconds"],
            "tokens_per_second": said["tokens_per_second"],
            "peak_bytes": int((run / "peak.txt").read_text(encoding="ascii")),
        },
        "measured": {
            name: record(texts, before[name], after[name]) for name, texts in (("end", end), ("other", other))
        },
    }


def of(model: Path, name: str, texts: list[str]) -> list[float]:
    """The nats of some texts by a model, kept beside it: a benchmark that goes on does not measure them anew."""
    path = model / f"nats-{name}.json"
    if not path.exists():
        write_json(path, nats(miniwin.load(model), texts))
    found: list[float] = read_json(path)
    print(f"{model.name}: {name} {bits(found, sizes(texts)).value:.4f} bits per byte", file=sys.stderr, flush=True)
    return found


def train(base: Path, work: Path, rate: float, tokens: int) -> Path:
    """The run folder of a training from the base. A run that is there is not trained anew."""
    out = work / f"lr{rate:g}-{tokens}"
    fields = {
        "kind": "train",
        "name": "lora-novel",
        "data": {"source": "text", "paths": ["learnt.txt"], "valid_paths": ["choosing.txt"]},
        "tokenizer": str((base / TOKENIZER).resolve()),
        "seq_len": 512,
        "batch_size": 2,
        "tokens": tokens,
        "optimizer": {"lr": rate, "weight_decay": 0.0},
        "dtype": "bfloat16",
        "lora": {"r": RANK, "lora_alpha": 2 * RANK},
    }
    write_text(work / "train.yaml", dump_yaml(parse_spec(fields, "train")))
    options = ["--out", out, "--tracking", "off", "--device", "cpu"]
    _miniwin("train", base, "--from", base, "--train", work / "train.yaml", *options)
    peak = out / "peak.txt"
    if not peak.exists():
        peak.write_text(str(_peak()), encoding="ascii")
    return out


def _miniwin(*arguments: object) -> None:
    """A command, in a process of its own."""
    command = [sys.executable, "-m", "miniwin", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise UserError(f"{' '.join(command[2:])}: ended with {done.returncode}")


def _peak() -> int:
    """The most memory that a process of ours had resident so far. They do much the same, the longest one last."""
    import resource

    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _first(texts: list[str], size: int) -> list[str]:
    """The first chapters, of about `size` bytes together, and four at least."""
    found: list[str] = []
    for text in texts:
        if len(found) >= 4 and sum(sizes(found)) >= size:
            break
        found.append(text)
    return found


if __name__ == "__main__":
    sys.exit(main())
