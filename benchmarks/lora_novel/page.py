"""README.md: what the fine-tuning on a novel gave. No figure is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.lora_novel.measuring import bits, change, verdict
from miniwin.display.formats import duration
from miniwin.evaluation.intervals import Interval
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_text
from miniwin.specs import UserError

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
BARS = {"end": (0.97, "falls by at least 3 %"), "other": (1.02, "rises by at most 2 %")}

HEAD = """# A novel, learnt with LoRA

`python -m benchmarks.lora_novel` measured this, and `--page` writes this page. No figure is typed by hand. The
package's docstring ([`__init__.py`](__init__.py)) says what is trained, what chooses and what is measured.
"""

WORDS = """
Intervals are 95 %, paired over chapters: the same chapters before and after. *ratio* is what is left of bits per byte.
A bar holds if the whole interval keeps to it. The learning rate was chosen on chapters of the novel that are
neither trained on nor measured here.
"""


def write_page(results: Path = RESULTS, out: Path = FOLDER) -> Path:
    """Raises UserError: there are no results, or they are damaged."""
    try:
        write_text(out / "README.md", page(read_json(results)))
    except (OSError, JSONProblem, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{results}: no results of this benchmark ({error!r}); measure them first") from None
    return out / "README.md"


def page(found: dict[str, Any]) -> str:
    train, training, machine = found["train"], found["training"], found["machine"]
    lora = train["lora"]
    novel, other = (Path(found[name]["file"]).stem for name in ("novel", "other"))
    facts = [
        f"{found['model']['file']}, imported, and trained on {training['tokens']:,} tokens of {novel} "
        f"({found['novel']['chapters']} chapters): rank {lora['r']}, lora_alpha {lora['lora_alpha']:g}, learning rate "
        f"{train['optimizer']['lr']:g}, rows of {train['seq_len']}, {train['dtype']}. Trained: "
        f"{found['trained_parameters']:,} numbers beside {found['parameters']:,} that stay.",
        "",
        f"Training took {duration(training['seconds'])} ({training['tokens_per_second']:,.0f} tokens/s) and at most "
        f"{training['peak_bytes'] / 2**30:.2f} GiB of memory, the command as a whole. {found['date']}, "
        f"{machine['cpu']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}, {machine['memory_gb']} GB, "
        f"torch {machine['torch']}, miniwin {machine['miniwin']}; load {found['load']}, "
        f"{found['minutes']} minutes in all.",
    ]
    columns = ("measured on", "chapters", "bits per byte before", "after", "difference", "ratio", "bar", "")
    lines = [HEAD, *facts, WORDS, _row(*columns), "|---" * 8 + "|"]
    names = {"end": f"the end of {novel}", "other": f"the end of {other}"}
    for name, one in found["measured"].items():
        difference, ratio = change(one["before"], one["after"], one["bytes"])
        before, after = (bits(one[side], one["bytes"]).value for side in ("before", "after"))
        bar, words = BARS[name]
        cells = (f"{before:.4f}", f"{after:.4f}", _interval(difference, "+.4f"), _interval(ratio, ".4f"))
        lines.append(_row(names[name], len(one["bytes"]), *cells, words, f"**{verdict(ratio, bar)}**"))
    chosen = found["choosing"]
    lines += [
        "",
        f"Chosen by bits per byte after {chosen['tokens']:,} tokens, {chosen['bits_per_byte']:.4f} before:",
        "",
        _row("learning rate", "bits per byte"),
        "|---" * 2 + "|",
        *(_row(f"{one['lr']:g}", f"{one['bits_per_byte']:.4f}") for one in found["tried"]),
    ]
    return "\n".join([*lines, ""])


def _interval(found: Interval, form: str) -> str:
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
