"""One file for each group of commands; only typer and the standard library are imported at their top."""
