"""What is known about a model besides its weights: from its config, from the user, and from the shapes of the weights.

A checkpoint without a config does not say how many heads or which window a model has. The user says so (`--set
key=value`), and the shapes of the weights show some of it. The two may not contradict each other. A family asks
`Asked`, which keeps account. A setting that no family asked for is refused. Values that cannot be known are requested
from the user, all in one message. What the user said and what was inferred goes into `import.json`.

    asked = Asked(given={"num_attention_heads": 8}, shapes=source.shapes)
    hidden = asked.infer("hidden_size", 512, "model.embed_tokens.weight is (6400, 512)")
    theta = asked.get("rope_theta", 10_000.0)
    asked.require(sliding_window_size="how many keys a sliding layer sees", attention_pattern="such as SSSL")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from miniwin.blocks.messages.nearest import nearest
from miniwin.specs.base import UserError
from miniwin.specs.yaml_scalars import shown


class Asked(Mapping[str, Any]):
    """A mapping of the config's fields and the user's settings (`given`).

    Neither overrides the other: a setting that differs from the same field of the config is an error. shapes: of the
    source's tensors, to infer from. `used` and `inferred` record what was asked for and what was inferred.
    """

    def __init__(
        self,
        given: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.given = dict(given or {})
        self.config = dict(config or {})
        self.shapes = dict(shapes or {})
        self.used: set[str] = set()
        self.inferred: dict[str, dict[str, Any]] = {}

    def __getitem__(self, key: str) -> Any:
        self.used.add(key)
        if key not in self.given:
            return self.config[key]
        value = self.given[key]
        said = self.config.get(key)
        if said is not None and said != value:
            raise UserError(
                f"--set {key}: got {shown(value)}; config.json says {shown(said)}. Leave the setting out, or correct "
                "config.json if it is wrong"
            )
        return value

    def __iter__(self) -> Iterator[str]:
        return iter({**self.config, **self.given})

    def __len__(self) -> int:
        return len({**self.config, **self.given})

    def __contains__(self, key: object) -> bool:
        if isinstance(key, str):
            self.used.add(key)
        return key in self.given or key in self.config

    def get(self, key: str, default: Any = None) -> Any:
        """What the user or the config says, or else the default. A null in the config gives None, not the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def require(self, **why: str) -> tuple[Any, ...]:
        """The values of these fields. why: what each field is, with an example, for the message.

        Raises:
            UserError: values are missing. One message asks for all of them.
        """
        values = {key: self.get(key) for key in why}
        lacking = [key for key, value in values.items() if value is None]
        if lacking:
            wanted = "; ".join(f"--set {key}=VALUE ({why[key]})" for key in lacking)
            raise UserError(f"the weights do not say {', '.join(lacking)}; say it: {wanted}")
        return tuple(values.values())

    def infer(self, key: str, value: Any, evidence: str) -> Any:
        """`value`, which the shapes of the weights show. evidence: how they show it, for messages and the record.

        Raises:
            UserError: the user or the config says another value.
        """
        said = self.get(key)
        if said is None:
            self.inferred[key] = {"value": value, "evidence": evidence}
            return value
        if said != value:
            where = f"--set {key}" if key in self.given else f"config.json: {key}"
            raise UserError(f"{where}: got {shown(said)}; expected {shown(value)}, since {evidence}")
        return value

    def refuse_unused(self) -> None:
        """Raise UserError for a setting that no family asked for: it would be ignored."""
        unused = [key for key in self.given if key not in self.used]
        if not unused:
            return
        near = nearest(unused[0], self.used)
        hint = f"did you mean {near}?" if near else f"known are {', '.join(sorted(self.used)) or 'none'}"
        raise UserError(f"--set {unused[0]}: this kind of model has no such setting; {hint}")
