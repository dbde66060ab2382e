"""Samplers of OptunaHub (hub.optuna.org), by name.

Only what is in the cache of the package optunahub is loaded: a search runs the code that you have looked at, works
without a network, and proposes the same tomorrow.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler

from miniwin.search.samplers.needs import need, refused
from miniwin.search.samplers.past import Past, Variables
from miniwin.specs.sampling import HubSampler

REGISTRY = Path("github.com") / "optuna" / "optunahub-registry" / "main" / "package"


def check(spec: HubSampler, space: Variables) -> None:
    sampler_class(spec)


def propose(spec: HubSampler, past: Past, seed: int) -> dict[str, Any]:
    kind = sampler_class(spec)
    seeded = "seed" in inspect.signature(kind).parameters and "seed" not in spec.kwargs
    try:
        return past.ask(kind(**spec.kwargs, **({"seed": seed} if seeded else {})))
    except TypeError as error:
        raise refused("kwargs", f"{kind.__name__} of OptunaHub's {spec.name}: {error}") from None


def sampler_class(spec: HubSampler) -> type[BaseSampler]:
    """The class. SpaceError: it is not in the cache, or there is not exactly one."""
    optunahub = need("hub", "optunahub", "optunahub")
    from optunahub._conf import cache_home

    root, package = Path(cache_home()) / REGISTRY, f"samplers/{spec.name}"
    if not (root / package / "__init__.py").is_file():
        fetch = f"import optunahub; optunahub.load_module('{package}')"
        raise refused(
            "name",
            f'{root / package} is not there, and a search fetches no code: run `python -c "{fetch}"` on each machine, '
            "and read what it fetched",
        )
    module = optunahub.load_local_module(package, registry_root=str(root))
    found = [
        member
        for name in getattr(module, "__all__", vars(module))
        if inspect.isclass(member := getattr(module, name))
        and issubclass(member, BaseSampler)
        and (hasattr(module, "__all__") or member.__module__.startswith(module.__name__))
    ]
    if len(found) != 1:
        names = ", ".join(member.__name__ for member in found) or "none"
        raise refused("name", f"OptunaHub's {spec.name} has to have one sampler; it has {names}")
    return found[0]
