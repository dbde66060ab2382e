"""Golden cases: our models against independent implementations, with their weights and within each case's tolerance.

The scaling by total length (a defect of one source, see its conventions) has tests of its own. test_golden_import.py
tests that the files of a case are imported as the same models.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
import yaml
from float64 import doubled
from golden_cases import FOLDERS, Case, golden
from helpers import largest
from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.blocks.positions import Positions


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def one_by_one(decoder: Decoder, ids: Tensor, prefill: int = 1) -> Tensor:
    """Logits of a prefill of some tokens, the rest decoded one at a time through our cache."""
    cache = decoder.new_cache(len(ids))
    parts = [decoder(ids[:, :prefill], cache=cache)]
    parts += [decoder(ids[:, t : t + 1], cache=cache) for t in range(prefill, ids.shape[1])]
    return torch.cat(parts, dim=1)


def scales_by_total(case: Case) -> bool:
    return any(scale["type"] == "log_total_len" for scale in case.fields.get("query_scales", {}).values())


def hidden_states(decoder: Decoder, ids: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def keep(key: str) -> Any:
        return lambda module, args, out: seen.__setitem__(key, out)

    decoder.embed_tokens.register_forward_hook(keep("hidden.embed"))
    for i, layer in enumerate(decoder.layers):
        layer.register_forward_hook(keep(f"hidden.layer{i}"))
        layer.attention.register_forward_hook(keep(f"attn_out.layer{i}"))
    seen["hidden.final_norm"] = decoder.hidden(ids)
    return seen


every_case = pytest.mark.parametrize("name", [folder.name for folder in FOLDERS])
variants = [(f.name, v) for f in FOLDERS for v in yaml.safe_load((f / "case.yaml").read_text()).get("variants", {})]


@every_case
def test_prefill_and_decode(name: str) -> None:
    case = golden(name)
    decoder = case.decoder()
    exact = doubled(decoder)(case.ids)
    case.holds(decoder(case.ids), case.io["logits.prefill"], exact)
    if scales_by_total(case):  # then decoding computes another function
        exact = one_by_one(doubled(decoder), case.ids)
    case.holds(one_by_one(decoder, case.ids), case.io["logits.decode"], exact)


@every_case
def test_hidden_states_of_every_layer(name: str) -> None:
    case = golden(name)
    decoder = case.decoder()
    seen, exact = hidden_states(decoder, case.ids), hidden_states(doubled(decoder), case.ids)
    assert set(seen) == {key for key in case.io if key.startswith(("hidden.", "attn_out."))}
    for key, value in seen.items():
        case.holds(value, case.io[key], exact[key])


@pytest.mark.parametrize(("name", "variant"), variants)
def test_variants(name: str, variant: str) -> None:
    case = golden(name)
    fields = case.fields["variants"][variant]
    changes = {key: fields[key] for key in ("position_schemes", "query_scales", "model") if key in fields}
    ids = case.io[fields["ids"]][:, : fields.get("truncate_ids_to")]
    decoder, expected = case.decoder(**changes), case.io[fields["logits"]]
    last = expected.shape[1]  # the longest cases keep the last positions only
    assert last == fields.get("keep_last", ids.shape[1])
    exact = doubled(decoder)(ids)[:, -last:]
    case.holds(decoder(ids)[:, -last:], expected, exact)
    if not scales_by_total(case) or "query_scales" in changes:
        prefill = 1 if last == ids.shape[1] else ids.shape[1] - last // 2
        case.holds(one_by_one(decoder, ids, prefill)[:, -last:], expected, exact)


def test_all_ten_cases_are_here() -> None:
    assert [folder.name[:3] for folder in FOLDERS] == [f"A{i:02}" for i in range(1, 11)]
    assert [(name[:3], variant) for name, variant in variants] == [
        ("A01", "harmonic"),
        ("A02", "corrected"),
        ("A04", "causal"),
        ("A04", "prefill_T37"),
        ("A06", "stock"),
    ]


def test_harmonics_listed_or_named_are_the_same() -> None:
    case = golden("A01")
    schemes = case.fields["variants"]["harmonic"]["position_schemes"]
    backwards = {"periodic": {**schemes["periodic"], "explicit_inv_freq": []}}
    backwards["periodic"]["explicit_inv_freq"] = schemes["periodic"]["explicit_inv_freq"][::-1]
    assert '"all"' in case.spec(position_schemes=schemes).model_dump_json()
    moved = case.decoder(position_schemes=backwards)(case.ids)  # the weights belong to one order of frequencies
    assert largest(moved, case.io["logits.harmonic"]) > 1


@pytest.mark.parametrize("name", ["A01", "A02", "A04", "A05", "A06"])
def test_rotary_tables(name: str) -> None:
    """Rotating ones by each position gives the cosines and sines of the source's tables."""
    case = golden(name)
    layer = case.decoder().layers[0].attention
    cos, sin = case.io["rope.cos_table"], case.io["rope.sin_table"]
    (scheme,) = case.fields["position_schemes"].values()
    turned_channels = scheme["rotary_dim"]
    half = turned_channels // 2
    ones = torch.zeros(1, len(cos), 1, layer.head_dim)
    ones[..., :half] = 1.0
    positions = Positions(torch.arange(len(cos)).unsqueeze(0))
    turned = layer.position.encode(ones, ones, positions)[0][0, :, 0]
    rounding = len(cos) * 2.0**-23  # the source rounds its angles to float32
    assert largest(turned[:, :half], cos[:, :half]) < rounding
    assert largest(turned[:, half:turned_channels], sin[:, half:turned_channels]) < rounding
    assert not turned[:, turned_channels:].any()


def test_total_length_scaling_matches_only_behind_its_setting() -> None:
    """One source has two functions. `total_length: true` gives its prefill, and its prefill of 40 tokens with decoding
    after it. The causal default gives its decoding, for any split into calls.
    """
    case = golden("A04")
    causal = {"query_scales": case.fields["variants"]["causal"]["query_scales"]}
    right, defect = case.decoder(**causal), case.decoder()
    assert largest(right(case.ids), case.io["logits.prefill"]) > 0.5
    exact = doubled(right)(case.ids)
    for prefill in (1, 40, 95):
        case.holds(one_by_one(right, case.ids, prefill), case.io["logits.decode"], exact)
    split, exact = (one_by_one(decoder, case.ids, prefill=40) for decoder in (defect, doubled(defect)))
    case.holds(split, case.io["logits.prefill40_then_decode"], exact)
    assert largest(split, case.io["logits.decode"]) > 0.1
    default = case.spec(**causal).layer_specs[3].attention.position.logit_scale
    assert default == type(default)(base=8.0), "off unless asked for"


def change(case: Case, mutation: str) -> dict[str, Any] | None:
    """The fields of a mutation in case.yaml's `mutation_max_abs_logit_change`; None if our specs cannot say it."""
    model, schemes = deepcopy(case.fields["model"]), deepcopy(case.fields["position_schemes"])
    layers, ((name, scheme),) = model["layers"], schemes.items()
    if mutation in ("window-1", "window+1"):
        for layer in layers:
            if "window" in layer:
                layer["window"] += int(mutation[-2:])
    elif mutation == "first local layer made full":
        layers[0] = {**layers[0], "attention": "full"}
    elif mutation.endswith(": period removed") and scheme["pairing"] != "half_mismatched":
        scheme["period"] = None
    elif mutation.endswith(": period+1"):
        scheme["period"] += 1
    elif mutation.endswith(": theta x1.1"):
        scheme["theta"] *= 1.1
    elif mutation.endswith(": pairing swapped"):
        scheme["pairing"] = {"half": "interleaved", "interleaved": "half"}[scheme["pairing"]]
    elif mutation.endswith(": conventional partial rotary"):
        scheme |= {"pairing": "half", "freq_dim": scheme["rotary_dim"]}
    elif mutation.endswith(": scaling off"):
        scheme["scaling"] = None
    elif mutation.endswith(": yarn truncate flipped"):
        scheme["scaling"]["truncate"] = not scheme["scaling"]["truncate"]
    elif mutation.startswith("layer 3 NoPE->") and scheme["period"] is None:
        layers[3] |= {"position": name, "query_scale": "none"}
    elif mutation == "layer 0 position removed":
        layers[0] |= {"position": "none"}
    elif mutation == "query scale off":
        for layer in layers:
            layer["query_scale"] = "none"
    elif mutation == "logit multiplier off":
        model["lm_head"]["logit_multiplier"] = 1.0
    elif mutation == "qk_norm order swapped":
        model["attention"]["qk_norm"]["order"] = "after_rope"
    elif mutation == "qk_norm off":
        model["attention"]["qk_norm"] = None
    elif mutation == "gqa head order":
        model["attention"]["num_kv_heads"] = model["attention"]["num_heads"]
    else:
        return None
    return {"model": model, "position_schemes": schemes}


def changed(case: Case, changes: dict[str, Any]) -> Decoder:
    """A model of the changed spec, with those weights of the case that it has. More key/value heads repeat the case's.

    For "gqa head order", query head h then reads key/value head h mod Hkv instead of h // (H / Hkv).
    """
    decoder = case.spec(**changes).build().eval()
    wanted = decoder.state_dict()
    state = {name: tensor for name, tensor in case.decoder().state_dict().items() if name in wanted}
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            head_dim = case.fields["model"]["attention"]["head_dim"]
            heads, groups = len(wanted[name]) // head_dim, len(tensor) // head_dim
            state[name] = tensor.unflatten(0, (groups, -1))[[h % groups for h in range(heads)]].flatten(0, 1)
    decoder.load_state_dict(state, strict=True)
    return decoder


@every_case
def test_a_changed_convention_moves_the_logits_as_the_case_says(name: str) -> None:
    """A changed setting changes the logits by as much as in the source."""
    case = golden(name)
    stated = case.fields["verification"]["mutation_max_abs_logit_change"]
    left = set()
    for mutation in stated:
        changes = change(case, mutation)
        if changes is None:
            left.add(mutation)
            continue
        moved = largest(changed(case, changes)(case.ids), case.io["logits.prefill"])
        assert moved == pytest.approx(stated[mutation], rel=0.01), mutation
    # Our specs have no mismatched rope without a period, and no published p-rope in a global layer.
    assert left <= {"periodic: period removed", "layer 3 NoPE->rope"}
