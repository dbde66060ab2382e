"""Blocks from outside the package: the example of docs/blocks.md, as a file and as an entry point, and broken ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from tiny import run_cli

from miniwin import without_torch
from miniwin.blocks import plugins
from miniwin.blocks.plugins import load_plugin
from miniwin.blocks.spec import UserError

EXAMPLE = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "blocks.md").read_text(encoding="utf-8"), re.M | re.S)
MODEL = """
kind: model
format: 1
name: fading
vocab_size: 256
hidden_size: 32
num_layers: 2
pattern: SG
blocks:
  S:
    attention: {num_heads: 4, num_kv_heads: 2, window: 7, position: {type: kerple}}
    mlp: {intermediate_size: 48}
  G:
    attention: {num_heads: 4, num_kv_heads: 2, position: {type: kerple}}
    mlp: {intermediate_size: 48}
"""
# A block's contract, in short. It runs after LATE in a process of its own, since registries belong to a process.
CONTRACT = """
spec = load_model_spec("model.yaml")
torch.manual_seed(0)
decoder = spec.build()
with torch.no_grad():
    for name, parameter in decoder.named_parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
assert spec.parameters() == sum(p.numel() for p in decoder.parameters())
ids = torch.randint(256, (2, 50))
logits = decoder(ids)
logits.logsumexp(-1).sum().backward()
assert all(p.grad.abs().max() > 0 for n, p in decoder.named_parameters() if "position" in n)
cache, parts = decoder.new_cache(2), []
with torch.no_grad():
    for i in range(50):
        parts.append(decoder(ids[:, i : i + 1], cache=cache))
assert (torch.cat(parts, 1) - logits).abs().max() < 1e-4
other = load_model_spec("model.yaml", ["blocks.G.attention.position={type: nope}"])
assert other.hash != spec.hash
print("kept", spec.layer_specs[0].attention.position)
"""


# Blocks of other kinds, and blocks that hold blocks. Spec classes that were built before know them in every place.
KINDS = """
from typing import Literal
from torch import nn
from miniwin.blocks import LOGIT_SCALES, MLPS, NORMS, POSITIONS, ROUTERS, SCALINGS, DenseSpec, PositionEncoding
from miniwin.blocks import PositionSpec, RouterSpec, SquaredReLU
from miniwin.blocks.positions.logit_scale import LogRatioScale
from miniwin.blocks.positions.scaling import ScalingSpec
from miniwin.blocks.mlps.routers import TopKSoftmax
from miniwin.blocks.spec import Strict

@SCALINGS.register
class HalfSpec(ScalingSpec):
    type: Literal["half-speed"] = "half-speed"
    def apply(self, frequencies, rope_theta, rotary_dim):
        return frequencies / 2, 1.0

@LOGIT_SCALES.register
class SlowSpec(Strict):
    type: Literal["slow"] = "slow"
    def build(self, num_heads):
        return LogRatioScale(100.0, False)
    def parameters(self, num_heads):
        return 0

@NORMS.register
class IdentitySpec(Strict):
    type: Literal["identity"] = "identity"
    def build(self, size):
        return nn.Identity()
    def parameters(self, size):
        return 0

@MLPS.register
class SquareSpec(DenseSpec):
    type: Literal["square"] = "square"
    matrices = 2
    def build(self, hidden_size):
        return SquaredReLU(hidden_size, self.intermediate_size, self.bias)

@ROUTERS.register
class OwnSpec(RouterSpec):
    type: Literal["own"] = "own"
    def build(self, hidden_size, num_experts, experts_per_token, bias):
        return TopKSoftmax(hidden_size, num_experts, experts_per_token, bias)

class Tilted(PositionEncoding):
    def score_bias(self):
        return lambda distance: -0.1 * distance.expand(4, -1, -1)

@POSITIONS.register
class TiltedSpec(PositionSpec):
    type: Literal["tilted"] = "tilted"
    before: POSITIONS.field() | None = None
    def build(self, heads):
        return Tilted()
"""
PLAIN = """
from typing import Literal
from torch import nn
from miniwin.blocks import NORMS
from miniwin.blocks.spec import Strict

@NORMS.register
class PlainSpec(Strict):
    type: Literal["plain"] = "plain"
    def build(self, size):
        return nn.Identity()
    def parameters(self, size):
        return 0
"""
LATE = """
import sys, torch
from miniwin.blocks import load_plugin
from miniwin.specs import UserError, json_schema, load_model_spec
before = load_model_spec("plain.yaml")
json_schema("model")
for name in sys.argv[1:]:
    load_plugin(name)
    load_plugin(name)  # once, however often it is named
assert load_model_spec("plain.yaml") == before and load_model_spec("plain.yaml").hash == before.hash
square = "{type: square, intermediate_size: 8}"
for change in (
    "blocks.G.attention.position={type: rope, scaling: {type: half-speed}}",
    "blocks.G.attention.position={type: resonance, scaling: {type: half-speed}}",
    "blocks.G.attention.position={type: nope, logit_scale: {type: slow}}",
    "blocks.G.attention.position={type: learned, num_positions: 3, then: {type: tilted}}",
    "blocks.G.attention.position={type: learned, num_positions: 3, then: {type: rope, scaling: {type: half-speed}}}",
    "blocks.G.attention.position={type: learned, num_positions: 3, then: {type: kerple}}",
    "blocks.G.attention.position={type: tilted, before: {type: learned, num_positions: 3, then: {type: kerple}}}",
    "blocks.G.attention.qk_norm={type: identity}",
    "embed_norm={type: identity}",
    f"blocks.G.mlp={{type: moe, num_experts: 3, experts_per_token: 2, expert: {square}, router: {{type: own}}}}",
):
    spec = load_model_spec("plain.yaml", [change])
    assert spec.hash != before.hash
    spec.build()(torch.zeros(1, 3, dtype=torch.int64))
for kind in ("half-speed", "slow", "identity", "square", "own", "tilted", "kerple"):
    assert f"'const': '{kind}'" in str(json_schema("model")), kind
tilted = load_model_spec("plain.yaml", ["blocks.G.attention.position={type: tilted}"]).build()
try:
    tilted(torch.zeros(1, 3, dtype=torch.int64), positions=torch.rand(1, 3))
except UserError as error:
    print(error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert len(EXAMPLE) == 1
    (tmp_path / "kerple.py").write_text(EXAMPLE[0], encoding="utf-8")
    (tmp_path / "model.yaml").write_text(MODEL, encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), environment.pop("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_example_is_short() -> None:
    assert len([line for line in EXAMPLE[0].splitlines() if line.strip()]) <= 30


def test_an_entry_point_the_option_and_the_environment(folder: Path) -> None:
    """Each brings a block that the model needs."""
    info = folder / "site" / "kerple-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "kerple.py").rename(folder / "site" / "kerple.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kerple\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[miniwin.plugins]\nkerple = kerple\n")
    (folder / "kinds.py").write_text(KINDS, encoding="utf-8")
    (folder / "plain.py").write_text(PLAIN, encoding="utf-8")
    model = MODEL.replace("mlp: {", "mlp: {type: square, ").replace("blocks:", "embed_norm: {type: plain}\nblocks:")
    (folder / "all.yaml").write_text(model, encoding="utf-8")
    command = ("-m", "miniwin", "--plugin", "plain.py", "explain", "all.yaml")
    site, kinds = str(folder / "site"), str(folder / "kinds.py")
    done = run(folder, *command, PYTHONPATH=site, MINIWIN_PLUGINS=kinds)
    assert done.returncode == 0 and "kerple" in done.stdout, done.stderr


def test_processes_that_are_started_load_what_the_option_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.VARIABLE, "colorsys")
    plugins.use_plugins(["json", "colorsys"])
    assert os.environ[plugins.VARIABLE].split(os.pathsep) == ["json", "colorsys"]
    assert not without_torch.wanted(["check", "model.yaml"])  # a plugin may need torch
    monkeypatch.delenv(plugins.VARIABLE)
    assert without_torch.wanted(["check", "model.yaml"])


def test_without_its_plugin_a_block_is_unknown(folder: Path) -> None:
    code, _, err = run_cli("check", str(folder / "model.yaml"))
    assert code == 2 and "'kerple'" in err and "Traceback" not in err


def test_the_option_after_the_command_says_where_it_goes(folder: Path) -> None:
    code, _, err = run_cli("explain", "miniwin-tiny", "--plugin", "kerple.py")
    assert code == 2 and err.endswith("--plugin goes before the command: miniwin --plugin FILE explain ...\n")
    code, _, err = run_cli("explain", "miniwin-tinny")
    assert code == 2 and "--plugin" not in err


def test_blocks_of_every_kind_that_come_late_are_known_wherever_they_may_stand(folder: Path) -> None:
    (folder / "kinds.py").write_text(KINDS, encoding="utf-8")
    (folder / "plain.yaml").write_text(MODEL.replace("kerple", "nope"), encoding="utf-8")
    done = run(folder, "-c", LATE + CONTRACT, "kinds.py", "kerple.py")
    assert done.returncode == 0, done.stderr
    assert "cannot take them: Tilted scores by how many tokens lie between query and key" in done.stdout
    assert "kept type='kerple'" in done.stdout


def test_a_plugin_that_fails_is_missed_by_every_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every later spec fails too, not only the first: without the plugin they might mean something else."""
    monkeypatch.setattr(plugins, "_searched", False)
    monkeypatch.setenv(plugins.VARIABLE, "no_such_module")
    code, out, err = run_cli("check", "miniwin-tiny", "miniwin-1m")
    assert code == 2 and not out
    assert err.count("plugin no_such_module: importing it failed") == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "absent.py",
            None,
            "absent.py: there is no such .py file; expected one, or a module's name",
        ),
        ("./folder/kerple", EXAMPLE[0], "kerple: there is no such .py file; expected one"),
        ("no_such_module", None, "plugin no_such_module: importing it failed with ModuleNotFoundError"),
        ("broken.py", "def f(:", "importing it failed with SyntaxError"),
        ("twice.py", EXAMPLE[0].replace('"kerple"', '"rope"'), "position 'rope' is registered twice"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_message(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        load_plugin(name if name == "no_such_module" else str(tmp_path / name))
