"""Training by several processes under torchrun, on CPUs, by each engine: the same run as one process makes."""

from __future__ import annotations

import os
import pkgutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from float64 import assert_as_near
from forked import together
from tiny_runs import MIXTURE, assert_equal, tiny_model, tiny_train, write_text
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from miniwin import load
from miniwin.checkpoint import load_checkpoint
from miniwin.files.writing import Unwritable
from miniwin.language_model import LanguageModel
from miniwin.runs import BEST, SHARDS, RunResult, read_evaluations, read_metrics, read_result
from miniwin.shards import write_shards
from miniwin.specs import ModelSpec, TrainSpec, UserError
from miniwin.training.distributed import Group, join, speaks
from miniwin.training.engine import Engine
from miniwin.training.launch import train
from miniwin.training.muon import ShardedMuon
from miniwin.training.rendezvous import PLACE, new_part
from miniwin.training.sharded import refuse_unshardable

ENGINES = ["ddp", "fsdp"]
STEEP: dict[str, Any] = {"tokens": 50 * 128, "optimizer": {"lr": 1e-2}}
FIFTY: dict[str, Any] = {"tokens": 50 * 128, "optimizer": {"lr": 1e-3}}
TWENTY: dict[str, Any] = {"tokens": 20 * 128, "optimizer": {"lr": 1e-3}}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "5")
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)


def go(model: ModelSpec, spec: TrainSpec, out: str, device: str = "cpu", **options: Any) -> RunResult:
    return train(model, spec, out=out, base=".", progress=False, tracking="off", device=device, **options)


def losses(folder: str) -> list[float]:
    return [line["loss"] for line in read_metrics(folder)]


def cases() -> dict[str, tuple[ModelSpec, TrainSpec]]:
    """Dense and a mixture of experts, some of whom nobody chooses; and a mixture of text and answers."""
    moe = {
        "type": "moe",
        "num_experts": 16,
        "experts_per_token": 1,
        "expert": {"type": "swiglu", "intermediate_size": 4},
        "router": {"type": "softmax-topk", "normalise": True},
        "balance_loss": 0.0,
    }
    blocks = tiny_model().model_dump(mode="json")["blocks"]
    measured = {"every": 1000, "tokens": 100, "keep_best": "minimize loss@32"}
    return {
        "dense": (tiny_model(), tiny_train(**FIFTY, eval=measured)),
        "experts": (
            tiny_model(blocks={**blocks, "G": {**blocks["G"], "mlp": moe}}, tie_word_embeddings=False),
            tiny_train(optimizer={"type": "muon", "lr": 1e-3}, tokens=8 * 256, gradient_accumulation=2),
        ),
        "mixture": (tiny_model(), tiny_train(**MIXTURE, tokens=8 * 256)),
    }


def every_case(engine: str) -> None:
    """Each run is stopped once, and continued. An evaluation has a model of which nothing is missing."""

    def on_eval(rung: int, model: LanguageModel) -> None:
        assert all(type(parameter.data) is torch.Tensor for parameter in model.parameters())
        with open("asked.txt", "a") as file:
            file.write(f"{rung}\n")

    for name, (model, spec) in cases().items():
        options: dict[str, Any] = {"distributed": engine, "on_eval": on_eval, "eval_at": [1000]}
        for stop, status in (600, "interrupted"), (None, "complete"):
            result = go(model, spec, name, stop_after_tokens=stop, **options)
            assert (str(result.folder), result.status) == (name, status), result


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_make_the_run_of_one(engine: str) -> None:
    together(every_case, engine)
    assert Path("asked.txt").read_text().split() == ["1000"] * 3, "one process is asked, once a run"
    for name, (model, spec) in cases().items():
        alone = f"{name}-alone"
        go(model, spec, alone)
        assert read_result(name).status == "complete" and Path(name, "model.safetensors").exists()
        exact = {"abs": 1e-6} if name == "dense" else {"rel": 2e-5}  # Muon rounds to bfloat16
        assert losses(name) == pytest.approx(losses(alone), **exact)
        norms = [[line["grad_norm"] for line in read_metrics(folder)] for folder in (name, alone)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        parts = [read_metrics(folder)[0].get("losses", {}) for folder in (name, alone)]
        assert parts[0] == pytest.approx(parts[1], rel=1e-5)
        measured = [read_evaluations(folder) for folder in (name, alone)]
        assert [line["step"] for line in measured[0]] == [line["step"] for line in measured[1]], "by one process only"
        for mine, other in zip(*measured, strict=True):
            assert mine["eval"]["loss@32"]["value"] == pytest.approx(other["eval"]["loss@32"]["value"], abs=1e-6)
        assert Path(name, BEST).exists() == (name == "dense")
    folders = "experts", "experts-alone"
    one, other = (load_checkpoint(Path(folder, "checkpoint.pt"))["optimizer"]["muon"] for folder in folders)
    assert len(one["state"]) < len(one["param_groups"][0]["params"]), "an expert that nobody chose has no momentum"
    assert one["state"].keys() == other["state"].keys()


def steep(engine: str) -> None:
    """At a learning rate that lets every rounding grow."""
    go(tiny_model(), tiny_train(**STEEP), "steep", distributed=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_are_as_near_to_float64_as_one_is(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    together(steep, engine)
    go(tiny_model(), tiny_train(**STEEP), "steep-alone")
    make = Engine.__init__

    def doubled(self: Engine, *given: Any, **named: Any) -> None:
        make(self, *given, **named)
        self.decoder.double()

    monkeypatch.setattr(Engine, "__init__", doubled)
    go(tiny_model(), tiny_train(**STEEP), "steep-exact")
    names = "steep", "steep-alone", "steep-exact"
    two, one, exact = (torch.tensor(losses(name), dtype=torch.float64) for name in names)
    assert len(exact) == 50 and exact[-1] < exact[0] - 1
    assert_as_near(two, one, exact)


def same_matrices() -> list[bool]:
    """Whether Muon gives the same matrix, bit for bit, whole and shared out, for wide and tall and uneven ones."""
    join("cpu")
    torch.manual_seed(0)
    mesh, same = init_device_mesh("cpu", (2,)), []
    for shape in (5, 12), (12, 5), (64, 32):
        whole: Any = nn.Parameter(torch.randn(shape))
        shared: Any = nn.Parameter(distribute_tensor(whole.detach().clone(), mesh, [Shard(0)]))
        one, several = torch.optim.Muon([whole], lr=0.1), ShardedMuon([shared], lr=0.1)
        for _ in range(3):
            whole.grad = torch.randn(shape)
            shared.grad = distribute_tensor(whole.grad, mesh, [Shard(0)])
            one.step()
            several.step()
        same.append(torch.equal(shared.full_tensor(), whole))
    return same


def test_muon_sees_whole_matrices() -> None:
    assert together(same_matrices) == {0: [True] * 3, 1: [True] * 3}


def piece(tokens: dict[str, int]) -> None:
    for engine, stop in tokens.items():
        go(tiny_model(), tiny_train(**TWENTY), "run", distributed=engine, stop_after_tokens=stop)


def test_any_engine_goes_on_from_the_checkpoint_of_any_other() -> None:
    """With two processes, one and four."""
    together(piece, {"ddp": 400, "fsdp": 800})
    assert sorted(path.name for path in Path("run").glob("checkpoint*")) == [SHARDS[0], "checkpoint.pt"]
    go(tiny_model(), tiny_train(**TWENTY), "run", stop_after_tokens=1200)
    assert not list(Path("run").glob("checkpoint-*"))
    together(piece, {"ddp": 1600, "fsdp": 2000}, processes=4)
    state = load_checkpoint(Path("run/checkpoint.pt"))
    assert_equal(state["model"], dict(load("run").decoder.state_dict()))
    assert go(tiny_model(), tiny_train(**TWENTY), "run").status == "complete"
    go(tiny_model(), tiny_train(**TWENTY), "alone")
    assert losses("run") == pytest.approx(losses("alone"), abs=1e-6)
    mine, other = (load_checkpoint(Path(folder, "checkpoint.pt"))["optimizer"] for folder in ("run", "alone"))
    assert mine["param_groups"] == other["param_groups"]
    torch.testing.assert_close(mine["state"], other["state"], rtol=1e-3, atol=1e-6)


def on_a_gpu(engine: str) -> None:
    """The engines with a single process, for which training would not take them, over NCCL."""
    kinds = {"ddp": "miniwin.training.replicated.Replicated", "fsdp": "miniwin.training.sharded.Sharded"}
    kind = pkgutil.resolve_name(kinds[engine])
    for dtype in "float32", "bfloat16":
        spec = tiny_train(**TWENTY, dtype=dtype, eval={"every": 1000, "tokens": 100, "keep_best": "minimize loss@32"})
        go(tiny_model(), spec, f"alone-{dtype}", "cuda")
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr("miniwin.training.loop.make_engine", lambda named, *of: kind(*of))
            for stop in 1000, None:
                go(tiny_model(), spec, f"run-{dtype}", "cuda", distributed=engine, stop_after_tokens=stop)
        assert losses(f"run-{dtype}") == pytest.approx(
            losses(f"alone-{dtype}"), rel=1e-5 if dtype == "float32" else 1e-2
        )
        assert Path(f"run-{dtype}", BEST).exists() and load(f"run-{dtype}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("engine", ENGINES)
def test_the_engines_on_a_gpu(engine: str) -> None:
    together(on_a_gpu, engine, processes=1)


# -- processes that are killed or asked to stop


def at_call(place: str, number: int, act: Callable[[], object]) -> None:
    """Have a function act when it is called for the so many-th time, before it does anything else."""
    import importlib

    module, _, name = place.rpartition(".")
    target: Any = importlib.import_module(module)
    real, left = getattr(target, name), number

    def acting(*of: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            act()
        return real(*of, **options)

    setattr(target, name, acting)


DEATHS = {  # by engine, and then by restart: who dies at which call of what
    "ddp": [(1, "miniwin.training.gradients.shares", 4), (0, "miniwin.training.engine.save_checkpoint", 2)],
    "fsdp": [
        (1, "miniwin.shards.flush", 3),
        (0, "miniwin.training.sharded.save_checkpoint", 2),
        (0, "miniwin.runs.remove_tree", 2),
    ],
}


def killed(engine: str) -> int:
    restart, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])
    for number, (who, place, call) in enumerate(DEATHS[engine]):
        if (restart, rank) == (number, who):
            at_call(place, call, lambda: os.kill(os.getpid(), signal.SIGKILL))
    go(tiny_model(), tiny_train(checkpoint_seconds=0, tokens=8 * 128), "killed", distributed=engine)
    go(tiny_model(), tiny_train(tokens=8 * 128), "whole", distributed=engine)
    return restart


@pytest.mark.parametrize("engine", ENGINES)
def test_after_kill_9_torchrun_starts_all_again_and_the_run_goes_on(engine: str) -> None:
    """In a step and anywhere in the writing of a checkpoint; in the end, it is the run that nobody killed."""
    deaths = len(DEATHS[engine])
    assert together(killed, engine, restarts=deaths) == {0: deaths, 1: deaths}
    assert Path("killed/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert losses("killed") == losses("whole")
    assert len(list(Path("killed").glob("checkpoint-*"))) == (engine == "fsdp") and not list(
        Path("killed").glob(".*.tmp")
    )


def test_a_second_start_does_not_read_what_the_first_has_written() -> None:
    """The first one's other process said that it was there, and died before it had an answer."""
    store = dist.HashStore()
    dist.PrefixStore(PLACE, store).set("here/1", "dead")
    for start in "first", "second":
        with ThreadPoolExecutor() as pool:
            parts = list(pool.map(lambda rank: new_part(store, rank, 3), range(3)))
        assert not parts[1].check(["address"])
        parts[0].set("address", start)
        assert {part.get("address") for part in parts} == {start.encode()}


def asked_to_stop() -> list[str | None]:
    reasons = []
    for engine in ENGINES:
        if os.environ["RANK"] == "1":
            at_call("miniwin.training.gradients.shares", 3, lambda: signal.raise_signal(signal.SIGTERM))
        reasons.append(go(tiny_model(), tiny_train(), engine, distributed=engine).reason)
    return reasons


def test_a_signal_to_one_process_stops_all() -> None:
    reasons = ["SIGTERM after step 3 of 30"] * len(ENGINES)
    assert together(asked_to_stop) == {0: reasons, 1: reasons}
    assert {load_checkpoint(Path(engine, "checkpoint.pt"))["step"] for engine in ENGINES} == {3}


# -- what is refused


def test_a_shard_that_is_missing_or_damaged_is_named() -> None:
    together(piece, {"fsdp": 300})
    shard = min(Path("run", SHARDS[0]).iterdir())
    content = shard.read_bytes()
    for damage in (None, content[:100], content[:-8]):
        shard.unlink() if damage is None else shard.write_bytes(damage)
        with pytest.raises(UserError, match=r"run/checkpoint-a cannot be read as a checkpoint .* with --fresh"):
            go(tiny_model(), tiny_train(**TWENTY), "run")
    shard.write_bytes(content)
    assert go(tiny_model(), tiny_train(**TWENTY), "run", stop_after_tokens=400).steps == 4


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_place_for_shards_that_cannot_be_written_is_named() -> None:
    Path("file").touch()
    with pytest.raises(Unwritable, match=r"file/checkpoint-a: could not be written \(Not a directory\)"):
        write_shards(Path("file/checkpoint-a"), {"weight": torch.ones(2)})


def test_an_engine_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="distributed: got 'zero'; expected ddp or fsdp"):
        go(tiny_model(), tiny_train(), "run", distributed="zero")


def test_parameters_that_cannot_be_sharded_are_refused() -> None:
    decoder: Any = tiny_model().build()
    refuse_unshardable(decoder)
    decoder.layers[1].attention.gain = decoder.layers[0].attention.gain = nn.Parameter(torch.ones(1))
    with pytest.raises(UserError, match=r"layers\.1\.attention\.gain belongs to another one too; use ddp"):
        refuse_unshardable(decoder)
    decoder.layers[0].attention.gain = nn.Parameter(torch.ones(()))
    with pytest.raises(UserError, match=r"layers\.0\.attention\.gain has none: it is a single number"):
        refuse_unshardable(decoder)


def unseen() -> str:
    with pytest.raises(UserError) as refused:
        go(tiny_model(), tiny_train(), f"run-{os.environ['RANK']}", distributed="fsdp")
    return str(refused.value)


def test_processes_that_do_not_see_the_run_folder_are_refused() -> None:
    """As on machines that share no folder."""
    for rank, said in together(unseen).items():
        assert f"not all of them see run-{rank}; expected an --out that all machines share, or ddp" in said


def test_fsdp_of_one_process_is_plain_training() -> None:
    for name, engine in ("one", "ddp"), ("other", "fsdp"):
        go(tiny_model(), tiny_train(tokens=256), name, distributed=engine)
    assert Path("one/model.safetensors").read_bytes() == Path("other/model.safetensors").read_bytes()


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(UserError, match="batch_size is 4, and 3 processes share it; expected a multiple of 3"):
        Group(0, 3).check(4)


@pytest.mark.parametrize(
    ("device", "rank", "own"),
    [(None, 1, "cuda:1"), ("cuda", 1, "cuda:1"), ("cuda", 0, "cuda:0"), ("cpu", 1, "cpu"), ("cpu:3", 1, "cpu")],
)
def test_each_process_takes_its_own_device(
    device: str | None, rank: int, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchrun starts them on a machine with two CUDA devices, which is made up."""
    made: list[Any] = []
    launched(monkeypatch, rank, processes=2, devices=2)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    monkeypatch.setattr("miniwin.training.rendezvous.meet", lambda timeout: ("store", rank, 2))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout, **of: made.append((backend, timeout)))
    group = join(device)
    assert (str(group.device), group.rank, group.size) == (own, rank, 2)
    (backend, patience), cuda = made[-1], own != "cpu"
    assert backend == ("nccl" if cuda else "gloo") and patience.days > 1 and len(made) == 1 + cuda


def launched(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int, devices: int) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr("miniwin.training.distributed.atexit.register", lambda function: None)
    for name, value in {"is_torchelastic_launched": True, "get_rank": rank, "get_world_size": processes}.items():
        monkeypatch.setattr(dist, name, lambda value=value: value)


def test_devices_that_cannot_be_shared_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, rank=1, processes=2, devices=1)
    with pytest.raises(
        UserError, match="got cuda:0 for 2 processes; expected cuda: each process takes a device of its own"
    ):
        join("cuda:0")
    with pytest.raises(UserError, match="2 processes were started on a machine with 1 CUDA devices"):
        join(None)
    assert not speaks()


def test_rows_are_shared_out() -> None:
    batch = torch.arange(12).view(6, 2)
    assert torch.equal(torch.cat([Group(rank, 3).rows(batch) for rank in range(3)]), batch)


def test_alone_nothing_changes() -> None:
    group = join(None)
    assert group.leads and group.size == 1 and speaks()
    state = {"weights": torch.ones(2)}
    assert group.spread(state) is state and group.share("x") == "x"
    assert group.first_said(None) is None and group.first_said("SIGINT") == "SIGINT"
    assert group.any(True, False) == [True, False]
    assert float(group.mean(torch.tensor(2.0))) == 2.0
