"""`miniwin adapt`: a pretrained full-attention model becomes a local/global one."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from miniwin.commands.printing import bar, say

PLAIN_SECONDS = 30.0  # between two lines of progress where there is no terminal


def adapt_command(
    ref: Annotated[
        str, typer.Argument(metavar="MODEL", help="A zoo entry, an imported folder or a run, with weights.")
    ],
    cache: Annotated[str, typer.Option(metavar="SHARE", help="How much of the cache may stay, such as 25%.")],
    out: Annotated[
        str, typer.Option(metavar="DIR", help="The folder to make. The same command continues a stopped one.")
    ],
    window: Annotated[int, typer.Option(help="Tokens that a local layer sees.")] = 512,
    sinks: Annotated[int, typer.Option(help="First tokens that a local layer goes on seeing (keep_first).")] = 4,
    length: Annotated[int, typer.Option(help="Tokens at which cache bytes are counted.")] = 8192,
    seq_len: Annotated[int, typer.Option(help="Tokens of a text of the report.")] = 4096,
    search_len: Annotated[
        int | None,
        typer.Option(help="Tokens of a text of the search, with windows as much shorter. Default: half of --seq-len."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A text file to search on, repeatable. Default: the source of Python's standard library."),
    ] = None,
    test_text: Annotated[
        list[str] | None,
        typer.Option(help="A text file for the report, repeatable. Default: the half of each --text not searched on."),
    ] = None,
    gates: Annotated[
        int, typer.Option(help="Texts on which gates learn which layers or heads to keep; 0: no gates.")
    ] = 60,
    evaluations: Annotated[int, typer.Option(help="Placements that the search scores.")] = 160,
    search_rows: Annotated[int, typer.Option(help="Texts of the search.")] = 4,
    rows: Annotated[int, typer.Option(help="Texts of the report.")] = 20,
    questions: Annotated[int, typer.Option(help="Questions of a text that judge a placement.")] = 12,
    harder: Annotated[int, typer.Option(help="Harder questions of a text of the report.")] = 4,
    text_weight: Annotated[float, typer.Option(help="Weight of a nat of text beside a nat of answers.")] = 1.0,
    heal: Annotated[
        str, typer.Option(metavar="TOKENS", help="Train the result on so many tokens, with the original as teacher.")
    ] = "0",
    heal_lr: Annotated[float, typer.Option(help="The learning rate of --heal.")] = 3e-4,
    heads: Annotated[bool, typer.Option("--heads", help="Single heads stay global, not whole layers.")] = False,
    widen: Annotated[
        bool, typer.Option("--widen", help="Layers that have a window may become global, others local in their place.")
    ] = False,
    known: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="What this command made before: its scores are not computed again."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of questions and placements.")] = 0,
    name: Annotated[str | None, typer.Option(help="The new model's name. Default: the old one's, with -local.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    beyond: Annotated[
        bool, typer.Option("--beyond-training", help="Also lengths that the model's files say it was not made for.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and for how long.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Find out which layers of a pretrained model may see a window only, and make that model.

    It keeps the weights; --heal trains them.
    """
    from miniwin.blocks.messages.escaping import escaped
    from miniwin.files.json_files import read_json
    from miniwin.search.adapt.asking import adapt
    from miniwin.search.adapt.settings import Settings, share_of
    from miniwin.search.adapt.words import outcome

    settings = Settings(
        cache=share_of(cache),
        window=window,
        sinks=sinks,
        length=length,
        seq_len=seq_len,
        search_len=max(seq_len // 2, 1) if search_len is None else search_len,
        text=tuple(text or ()),
        test_text=tuple(test_text or ()),
        search_rows=search_rows,
        rows=rows,
        questions=questions,
        harder=harder,
        gates=gates,
        evaluations=evaluations,
        text_weight=text_weight,
        seed=seed,
        heads=heads,
        widen=widen,
        heal=_tokens(heal),
        heal_lr=heal_lr,
        known=known,
        name=name,
        beyond=beyond,
    )
    with _Shown(quiet) as shown:
        folder = adapt(
            ref,
            settings,
            out,
            told=shown,
            device=device,
            dry_run=dry_run,
            progress=not quiet,
            say=lambda said: say(escaped(said), err=True),
        )
    if folder is None:
        say("nothing was written")
        return
    for line in outcome(read_json(folder / "adapt.json")):
        say(escaped(line))
    say(escaped(f"wrote {folder}: a model, adapt.json, and adapt.html, the page"))


def _tokens(text: str) -> int:
    """`1e6` or `1000000`."""
    from miniwin.specs import UserError

    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 2**62 or value != int(value):
        raise UserError(f"--heal: got {text}; expected a number of tokens, such as 1e6")
    return int(value)


class _Shown:
    """Progress with the time left on stderr: a bar on a terminal, a line every half a minute elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._name, self._done, self._whole = "", 0.0, 1.0
        self._began = self._last = time.monotonic()

    def __enter__(self) -> _Shown:
        self._bar = None if self._quiet else bar()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str, steps: float) -> None:
        self._name, self._done, self._whole, self._began = name, 0.0, steps, time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(name, total=steps)

    def step(self, amount: float = 1.0, said: str = "") -> None:
        from miniwin.display.formats import duration

        self._done += amount
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=f"{self._name} {said}".strip())
        elif not self._quiet and now - self._last >= PLAIN_SECONDS:
            self._last = now
            left = (now - self._began) / self._done * (self._whole - self._done)
            share = f"{self._done:g} of {self._whole:g}"
            print(f"adapt: {self._name} {share}, {duration(left)} left. {said}".rstrip(), file=sys.stderr, flush=True)
