"""`miniwin calibrate`: how fast this machine trains, as lines for a search spec."""

from __future__ import annotations

from typing import Annotated

import typer


def calibrate_command(
    train: Annotated[str, typer.Argument(help="Train spec: a YAML file, or the name of a shipped one.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field of the train spec first, such as batch_size=4.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: a GPU, if there is one.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line for each model.")] = False,
) -> None:
    """Measure how fast this machine trains small models as a train spec says, in half a minute.

    Prints `speeds: ...`, lines for a search spec that asks for predicted times: `match: train_time`, or an objective
    such as `minimize train_time@1x`.
    """
    from statistics import median

    from miniwin.commands.printing import say
    from miniwin.machine.devices import find_device, settled
    from miniwin.specs import dump_yaml, load_train_spec
    from miniwin.training.calibration import calibrate

    where = find_device(device)
    spec = settled(load_train_spec(train, overrides or (), "--set"), where)
    found = calibrate(spec, where, (lambda line: None) if quiet else (lambda line: say(line, err=True)))
    errors = sorted(map(abs, found.errors))
    say(f"# Each of {len(errors)} models, predicted from the others: rank correlation {found.rank:.2f}; off by")
    say(f"# {median(errors):.0%} in the median, and by {errors[-1]:.0%} at most.")
    say("speeds:")
    for line in dump_yaml(found.speeds).splitlines():
        say(f"  {line}")
