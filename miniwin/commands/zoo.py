"""`miniwin zoo`: versioned models. Each command lives in one of the files zoo_*.py beside this one."""

from __future__ import annotations

import typer

from miniwin.commands import (
    zoo_adding,
    zoo_cache,
    zoo_listing,
    zoo_publishing,
    zoo_pulling,
    zoo_search,
    zoo_showing,
    zoo_site,
    zoo_sources,
)

app = typer.Typer(
    rich_markup_mode=None,
    help="Versioned, hashed models: list, search, show, verify, add, pull, index, publish, yank, site.",
    no_args_is_help=True,
)

app.command("list")(zoo_listing.list_command)
app.command()(zoo_search.search)
app.command()(zoo_showing.show)
app.command()(zoo_showing.verify)
app.command()(zoo_adding.add)
app.command()(zoo_pulling.pull)
zoo_publishing.add_to(app)
app.command()(zoo_sources.keygen)
app.command()(zoo_sources.mirror)
app.command()(zoo_sources.lock)
app.command()(zoo_site.site)
app.add_typer(zoo_sources.app, name="source")
app.add_typer(zoo_cache.app, name="cache")
