"""From a list of layers, as configs have them, to the pattern of letters that a model spec tiles."""

from __future__ import annotations

from typing import Any

from miniwin.blocks.spec import UserError

LOCAL, GLOBAL, SPARE = "STUVWXYZ", "GHIJKLMNOPQR", "ABCDEF"
MORE = "abcdefghijklmnopqrstuvwxyz"  # where capital letters are too few


def lay_out(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """num_layers, pattern, last and blocks of a model spec with these layers.

    Equal layers get one letter: S, T, .. where they have a window or a chunk, G, H, .. where they see everything. When
    the letters of a kind run out, it goes on with the others, and then with small ones. Raises UserError where there
    are more kinds than letters.
    """
    kinds: dict[str, dict[str, Any]] = {}
    letters = {True: LOCAL + SPARE + GLOBAL + MORE, False: GLOBAL + SPARE + LOCAL + MORE}
    layout = ""
    for layer in layers:
        letter = next((letter for letter, kind in kinds.items() if kind == layer), None)
        if letter is None:
            attention = layer["attention"]
            local = None not in (attention.get("windows") or [attention.get("window") or attention.get("chunk")])
            letter = next((one for one in letters[local] if one not in kinds), None)
            if letter is None:
                raise UserError(
                    f"the layers are of more than {len(kinds)} kinds; a spec has a letter for each, A to Z and a to z"
                )
            kinds[letter] = layer
        layout += letter
    return {"num_layers": len(layers), **pattern_of(layout), "blocks": kinds}


def pattern_of(layout: str) -> dict[str, str]:
    """The shortest pattern that tiles the layout, or tiles it without its last layer, which is then `last`.

    Where nothing repeats, the pattern is the layout itself.
    """
    n = len(layout)
    for size in range(1, n + 1):
        tiled = (layout[:size] * (n // size + 1))[:n]
        if n % size == 0 and tiled == layout:
            return {"pattern": layout[:size]}
        if size < n - 1 and tiled[:-1] == layout[:-1]:
            return {"pattern": layout[:size], "last": layout[-1]}
    raise AssertionError("a layout tiles itself")
