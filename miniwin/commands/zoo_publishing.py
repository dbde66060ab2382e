"""`miniwin zoo index`, `publish`, `yank`, `deprecate` and `restore`: zoos that others pull from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miniwin.commands.printing import say, typed

if TYPE_CHECKING:
    from miniwin.zoo.index import ReleaseStatus
    from miniwin.zoo.signatures import Signer

At = Annotated[str, typer.Option("--at", help="The zoo: a folder, s3://bucket/path or hf:org/repo.")]
Reason = Annotated[str, typer.Option(help="Why; whoever uses the model will read it.")]
Sign = Annotated[Path | None, typer.Option("--sign", metavar="FILE.key", help="Sign the index with this minisign key.")]
NewKey = Annotated[bool, typer.Option("--new-key", help="Sign though another key signed so far, or none did.")]
Exact = Annotated[str, typer.Argument(metavar="NAME@X.Y.Z", help="The release.")]


def index(zoo: Annotated[Path, typer.Argument(help="A zoo folder.")]) -> None:
    """Write ZOO/index.json. Serve the folder with any web server, and others can pull from it."""
    from miniwin.zoo import write_index

    say(f"wrote {write_index(zoo)}")


def publish(
    ref: Annotated[str, typer.Argument(help="The entry: name@1.2.3, an alias, or an entry's folder.")],
    to: Annotated[str, typer.Option("--to", help="Where: a folder, s3://bucket/path, hf:org/repo or mlflow.")],
    logits: Annotated[bool, typer.Option(help="Run the model first, and compare with the stored logits.")] = True,
    sign: Sign = None,
    new_key: NewKey = False,
) -> None:
    """Publish an entry: content first, index last. A version that is there with other content is refused."""
    from miniwin.zoo.publishing.publish import publish as run

    done = run(ref, to, logits=logits, signer=_signer(sign), new_key=new_key)
    if ref != done.entry.ref:
        say(f"{ref} is {done.entry.ref} ({done.entry.folder})", err=True)
    if done.new:
        number = "" if done.serial is None else f" (index number {done.serial})"
        say(f"published {done.entry.ref} to {done.target}{number}")
    else:
        say(f"{done.entry.ref} is at {done.target} already, with the same content")


def yank(ref: Exact, at: At, reason: Reason, sign: Sign = None, new_key: NewKey = False) -> None:
    """Take a release out of use: aliases pass over it, and its exact name warns. Its files stay."""
    _mark(ref, at, "yanked", reason, sign, new_key)


def deprecate(ref: Exact, at: At, reason: Reason, sign: Sign = None, new_key: NewKey = False) -> None:
    """Say that there is something better than a release. It can be used all the same, with a warning."""
    _mark(ref, at, "deprecated", reason, sign, new_key)


def restore(ref: Exact, at: At, sign: Sign = None, new_key: NewKey = False) -> None:
    """Take back that a release was yanked or deprecated."""
    _mark(ref, at, "active", None, sign, new_key)


def _mark(ref: str, at: str, status: ReleaseStatus, reason: str | None, sign: Path | None, new_key: bool) -> None:
    from miniwin.zoo.publishing.editing import set_status
    from miniwin.zoo.publishing.opening import open_target

    typed("--reason", reason or "")
    target = open_target(at)
    done = set_status(target, ref, status, reason, _signer(sign), new_key)
    said = f"{ref} is {status} at {target.name}"
    say(f"{said} (index number {done.published.serial})" if done.new else f"{said} already")


def _signer(path: Path | None) -> Signer | None:
    """The key in a file, unlocked by a password: that of the environment, or one that is typed."""
    if path is None:
        return None
    from miniwin.specs import user_path
    from miniwin.zoo.signatures import LockedKey, Signer

    try:
        return Signer(user_path(path))
    except LockedKey:
        if not sys.stdin.isatty():
            raise
    return Signer(user_path(path), typer.prompt(f"password of {path}", hide_input=True))


def add_to(app: typer.Typer) -> None:
    for command in (index, publish, yank, deprecate, restore):
        app.command()(command)
