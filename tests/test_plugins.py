"""Blocks from outside the package: the example of CONTRIBUTING.md, as a file and as an entry point, and broken ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from miniwin.blocks.plugins import load_plugin
from miniwin.blocks.spec import UserError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = re.findall(r"^```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)
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
# The contract of a block, in short, in a process of its own: registries are the process's.
CONTRACT = """
import sys, torch
from pathlib import Path
import miniwin
from miniwin.specs import json_schema, load_model_spec
{before}
spec = load_model_spec("model.yaml")
assert "kerple" in str(json_schema("model"))
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
other = load_model_spec("model.yaml", ["blocks.G.attention.position={{type: nope}}"])
assert other.hash != spec.hash
print("kept", spec.layer_specs[0].attention.position)
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


def test_a_file_loaded_from_python(folder: Path) -> None:
    before = "miniwin.blocks.load_plugin('kerple.py'); miniwin.blocks.load_plugin('kerple.py')"
    done = run(folder, "-c", CONTRACT.format(before=before))
    assert done.returncode == 0, done.stderr
    assert "kept type='kerple'" in done.stdout


def test_an_entry_point(folder: Path) -> None:
    info = folder / "site" / "kerple-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "kerple.py").rename(folder / "site" / "kerple.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kerple\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[miniwin.plugins]\nkerple = kerple\n")
    done = run(folder, "-c", CONTRACT.format(before=""), PYTHONPATH=str(folder / "site"))
    assert done.returncode == 0, done.stderr
    done = run(folder, "-m", "miniwin", "check", "model.yaml", PYTHONPATH=str(folder / "site"))
    assert done.returncode == 0 and done.stdout.startswith("ok: "), done.stderr


def test_on_the_command_line_and_in_processes_that_it_starts(folder: Path) -> None:
    done = run(folder, "-m", "miniwin", "--plugin", "kerple.py", "explain", "model.yaml")
    assert done.returncode == 0 and "kerple" in done.stdout, done.stderr
    done = run(folder, "-m", "miniwin", "check", "model.yaml", MINIWIN_PLUGINS=str(folder / "kerple.py"))
    assert done.returncode == 0, done.stderr
    done = run(folder, "-m", "miniwin", "check", "model.yaml")
    assert done.returncode == 2 and "'kerple'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.py", None, "absent.py: there is no such file; expected the path of a .py file, or a module's name"),
        ("no_such_module", None, "plugin no_such_module: importing it failed with ModuleNotFoundError"),
        ("broken.py", "def f(:", "importing it failed with SyntaxError"),
        ("twice.py", EXAMPLE[0].replace('"kerple"', '"rope"'), "position 'rope' is registered twice"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_message(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        load_plugin(str(tmp_path / name) if name.endswith(".py") else name)
