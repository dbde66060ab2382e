"""`miniwin lm-eval`: the command line of lm-evaluation-harness, which knows MiniWin's models here."""

from __future__ import annotations

import sys

import typer

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
NAMES_A_MODEL = {"--model", "-M", "--config", "-C"}


def lm_eval_command(context: typer.Context) -> None:
    """Run tasks of lm-evaluation-harness. All arguments are those of its own command `lm_eval`, for example
    --model miniwin --model_args pretrained=miniwin-1m --tasks lambada_openai; without --model it is miniwin.
    `miniwin lm-eval run --help` lists them."""
    from miniwin.specs import UserError

    try:
        from lm_eval.__main__ import cli_evaluate
    except ModuleNotFoundError as error:
        raise UserError(f"lm-eval needs lm-evaluation-harness ({error}): pip install 'miniwin[lm-eval]'") from None
    import miniwin.evaluation.lm_eval_model  # noqa: F401  makes the model known

    before = sys.argv
    sys.argv = ["lm_eval", *with_model(context.args)]
    try:
        cli_evaluate()
    except ValueError as error:
        if isinstance(error, UserError) or not raised_by_the_harness(error):
            raise
        raise UserError(f"lm_eval: {error}") from None
    finally:
        sys.argv = before


def with_model(arguments: list[str]) -> list[str]:
    """The arguments of an evaluation name a model: ours, if no other is named."""
    options = {one.partition("=")[0] for one in arguments}
    runs, named = options & {"--tasks", "-t"}, options & NAMES_A_MODEL
    return [*arguments, "--model", "miniwin"] if runs and not named else arguments


def raised_by_the_harness(error: BaseException) -> bool:
    """Whether its own code refused something, such as a task that it does not know."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return step is not None and str(step.tb_frame.f_globals.get("__name__")).startswith("lm_eval.")
