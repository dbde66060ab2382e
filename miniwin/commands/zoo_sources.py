"""`miniwin zoo source`: further zoos; `zoo keygen`: keys for their signatures; `zoo mirror`: a copy of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miniwin.commands.printing import say

app = typer.Typer(rich_markup_mode=None, help="Further zoos: add, list, remove, accept.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and '-'.")]


@app.command()
def add(
    name: Name,
    location: Annotated[
        str, typer.Argument(metavar="URL|DIR", help="The zoo's index.json, or the folder that holds it.")
    ],
    key: Annotated[
        str | None,
        typer.Option("--key", help="A minisign public key (RW...) or its .pub file: the index must be signed."),
    ] = None,
) -> None:
    """Add a zoo. From then on its index says which bytes its names stand for: add only a zoo that you trust."""
    from miniwin.zoo.adding_sources import add_checked
    from miniwin.zoo.signatures import key_id

    source, offers = add_checked(name, location, key)
    say(f"added the zoo {name}: {source.location} ({len(offers)} releases)")
    if source.key is None:
        say(
            f"This zoo is not signed for you: whoever can write to {source.location} decides what its names stand for. "
            "With --key only the owner of the key does."
        )
    else:
        say(f"Its index has to be signed by key {key_id(source.key)}; one that is not is not used.")
    say(f"next: miniwin zoo list --remote, or miniwin zoo pull {name}/NAME; every pull from it says so")


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list of objects.")] = False,
) -> None:
    """The zoos that were added, in the order in which names are looked for."""
    import json

    from miniwin.zoo.configured import sources
    from miniwin.zoo.signatures import key_id

    found = sources()
    if as_json:
        typer.echo(json.dumps([source.model_dump(mode="json") for source in found], indent=2))
        return
    for source in found:
        signed = "not signed" if source.key is None else f"key {key_id(source.key)}"
        say(f"{source.name}  {source.location}  {signed}  added {source.added}")
    if not found:
        say("no zoo was added; miniwin zoo source add NAME URL adds one")


@app.command()
def remove(name: Name) -> None:
    """Remove a zoo. What was pulled from it stays on this machine."""
    from miniwin.zoo.configured import remove_source

    source = remove_source(name)
    say(f"removed the zoo {name} ({source.location}); what was pulled from it stays")


@app.command()
def accept(
    name: Annotated[str, typer.Argument(metavar="NAME|URL|DIR", help="The zoo, or the location of its index.")],
) -> None:
    """Forget what a zoo said before, where whoever runs it says that going back is right. Its next index is taken."""
    from miniwin.zoo.adding_sources import forget_source

    say(f"{forget_source(name)}: what it said before is forgotten; the next index is taken as it is")


def keygen(
    path: Annotated[Path, typer.Argument(metavar="FILE.key", help="The new secret key; FILE.pub gets the public one.")],
    password: Annotated[bool, typer.Option(help="Ask for a password; without one, the file alone can sign.")] = True,
) -> None:
    """Make a pair of minisign keys. Sign with `zoo publish --sign FILE.key`; readers add the zoo with `--key`."""
    import os

    from miniwin.specs import user_path
    from miniwin.zoo.signatures import PASSWORD, make_keys

    secret = os.environ.get(PASSWORD) if password else None
    if password and secret is None:
        secret = typer.prompt("password", hide_input=True, confirmation_prompt=True)
    target = user_path(path)
    shown, public = make_keys(target, secret)
    if not secret:
        say(f"warning: {target} has no password: whoever can read it can sign in your name", err=True)
    say(f"secret key: {target}; keep it, and keep it to yourself")
    say(f"public key: {shown}")
    say(f"readers: miniwin zoo source add NAME URL --key {public}")


def mirror(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; the same command again adds what is new.")],
    refs: Annotated[list[str] | None, typer.Argument(metavar="[REF]...", help="Only these entries.")] = None,
) -> None:
    """Copy zoos into a folder: index, signature and files. With MINIWIN_ZOO_MIRROR=DIR pulls need no network."""
    from miniwin.display.formats import decimal_bytes
    from miniwin.zoo.mirroring import mirror as run

    for done in run(folder, refs or [], lambda line: say(line, err=True)):
        what = f"{done.files} files fetched, {decimal_bytes(done.size)}" if done.files else "nothing was lacking"
        say(f"{done.zoo}: {done.releases} releases in {done.folder} ({what})")


def lock(
    file: Annotated[Path, typer.Argument(help="The file to write, such as models.lock.")],
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="Names, aliases or exact versions.")],
) -> None:
    """Write down exact versions and digests. `zoo pull --locked FILE` then gives these bytes, or refuses."""
    from miniwin.zoo.lock_file import write_lock

    for one in write_lock(file, refs):
        zoo = "" if one.zoo is None else f" of the zoo {one.zoo}"
        say(f"{one.asked}: {one.ref}{zoo}, digest {one.digest}")
