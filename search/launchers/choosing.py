"""Which launcher is meant, with which options: a name, or a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from miniwin.blocks.messages.nearest import near
from miniwin.search.launchers.launcher import Launcher
from miniwin.search.launchers.local import Local
from miniwin.search.launchers.on_ray import Ray
from miniwin.search.launchers.on_slurm import Slurm
from miniwin.specs import UserError, user_path
from miniwin.specs.loading import overridden, validated
from miniwin.specs.yaml_document import Document
from miniwin.specs.yaml_scalars import shown

LAUNCHERS: dict[str, type[Launcher]] = {"local": Local, "ray": Ray, "slurm": Slurm}
OPTION = "--set-launcher"


def choose(launcher: str | Path | Launcher, options: Sequence[str] = ()) -> Launcher:
    """The launcher, from its name, from a YAML file with its options, or as it is. options: such as "gpus=0.25".

    Raises:
        UserError: there is no such launcher, or it has no such option; or it cannot start a worker from here.
    """
    chosen = _read(launcher, options)
    chosen.check()
    return chosen


def _read(launcher: str | Path | Launcher, options: Sequence[str]) -> Launcher:
    if isinstance(launcher, Launcher):
        return overridden(launcher, options, OPTION) if options else launcher
    if user_path(launcher).suffix not in (".yaml", ".yml"):
        if (name := str(launcher)) not in LAUNCHERS:
            raise UserError(f"--launcher {name}: {near(name, list(LAUNCHERS))}; or give a YAML file with its `type`")
        if options and set(LAUNCHERS[name].model_fields) == {"type"}:
            raise UserError(f"{OPTION} {options[0]}: the launcher {name} has no options; leave it out")
        return overridden(LAUNCHERS[name](type=name), options, OPTION)
    document = Document.read(user_path(launcher))
    data = document.data
    if not isinstance(data, dict):
        raise UserError(f"{document.place(())}: got {shown(data)}; expected a mapping, such as `type: slurm`")
    stated = data.get("type")
    if not isinstance(stated, str) or stated not in LAUNCHERS:
        got = f"got {shown(stated)}" if "type" in data else "is missing"
        hint = near(str(stated), list(LAUNCHERS))
        raise UserError(f"{document.place(('type',) if 'type' in data else ())}: type: {got}; {hint}")
    return validated(data, LAUNCHERS[stated], options, OPTION, document)
