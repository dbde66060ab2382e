"""Public import paths: what others may write goes on working, wherever the code behind it stands.

Public is what files outside this repository hold or our documents show: what `miniwin`, `miniwin.blocks`, `specs`,
`zoo` and `search` name in `__all__`, what exported folders import, what README, docs/, CONTRIBUTING and the changelog
show, and the functions and classes of the modules that have a name of their own (`miniwin.blocks.cache`,
`miniwin.evaluation`, ...). Every other module may move. A name is added when it becomes public; none is taken away.
"""

from __future__ import annotations

from importlib import import_module

import pytest

# Modules, without the "miniwin." before each, and what is imported from them.
PATHS = {
    "": "LanguageModel UserError __version__ build evaluate load load_spec train",
    "blocks": """
        ATTENTIONS Attention AttentionCall AttentionSpec Cache ClampedSwiGLU ClampedSwiGLUSpec
        Decoder DenseSpec GELU GELUSpec GeGLU GeGLUSpec Heads InitSpec LOGIT_SCALES Layer LayerCache
        LayerNorm LayerNormSpec LayerSpec MLPS MLPSpec MixtureOfExperts MixtureOfExpertsSpec NORMS
        POSITIONS ParallelLayer PositionEncoding PositionSpec Positions RMSNorm RMSNormSpec ROUTERS
        Registry Router RouterSpec Routes SCALINGS SquaredReLU SquaredReLUSpec SwiGLU SwiGLUSpec
        attend load_plugin use_backend
    """,
    "blocks.attention": "Attention QKNorm",
    "blocks.attention_ops": "AttentionCall BACKENDS Kept attend choose ill_suited may_use steps_by_sdpa use_backend",
    "blocks.cache.batching": "check_together joined row",
    "blocks.cache.rollback": "Mark",
    "blocks.cache": "Cache GrowingCache Int8Cache LayerCache RingCache SplitCache storage storage_dtype",
    "blocks.int8": "quantised widened",
    "blocks.native": "",
    "blocks.positions": """
        Alibi AlibiSpec Forgetting ForgettingSpec Heads Hyperbolic HyperbolicSpec Learned
        LearnedSpec Nope NopeSpec PeriodicRope PeriodicRopeSpec PositionEncoding PositionSpec
        Positions RelativeBuckets RelativeBucketsSpec Resonance ResonanceSpec Rope RopeSpec
        ScoreBias ScoreFunction StickBreaking StickBreakingSpec TokenAwarePhase TokenAwarePhaseSpec
        TransformerXL TransformerXLSpec base located located_all
    """,
    "cli": "main",
    "evaluation": "LENGTHS Metrics evaluate loss_at sequence_loss",
    "explain": "explanation groups layer_numbers period sees",
    "generation": "Generation generate generate_batch",
    "provenance": "code_version machine",
    "search": "StudyData TrialRecord check_search promote read_study run_search",
    "search.report": "render verdict write_report",
    "search.worker": "main",
    "sessions": "load_session new_session save_session",
    "specs": """
        Count DataSpec ModelSpec SearchSpec Strict TrainSpec UserError dump_yaml json_schema
        load_model_spec load_search_spec load_spec load_train_spec overridden parse_spec
        resolve_spec_path shipped_specs user_path
    """,
    "tokenizer": "ByteTokenizer HFTokenizer StreamDecoder Tokenizer load_tokenizer",
    "zoo": """
        Entry Problem ZooError add built_in_zoo check_addable find is_ref list_entries resolve
        user_zoo verify write_index
    """,
    "zoo.exporting": "Exported Refusal Stock export_model find_stock",
    "zoo.importing": "Asked Imported Source import_model open_source",
    "zoo.importing.families": """
        FAMILIES cohere2 exaone4 gemma2 gemma3 gpt_neox gpt_oss llama llama4 minimind miniwin
        mistral nanochat olmo3 phi3 qwen3 qwen3_moe smollm3
    """,
    "zoo.importing.family": "CannotSay Family Fields Rule",
}
ALL = ("", "blocks", "search", "specs", "zoo")  # what these name is in their `__all__`, too


def module(name: str) -> str:
    return f"miniwin.{name}" if name else "miniwin"


def is_imported(name: str, public: str) -> None:
    exec(f"from {module(name)} import {public}" if public else f"import {module(name)}", {})


@pytest.mark.parametrize("name", PATHS)
def test_public_names_are_imported(name: str) -> None:
    for public in PATHS[name].split() or [""]:
        is_imported(name, public)


@pytest.mark.parametrize("name", ALL)
def test_a_public_name_is_listed_by_its_package(name: str) -> None:
    assert set(PATHS[name].split()) <= set(import_module(module(name)).__all__)


def test_a_missing_name_is_noticed() -> None:
    with pytest.raises(ImportError):
        is_imported("blocks", "Atention")
    with pytest.raises(ImportError):
        is_imported("bloks", "")
