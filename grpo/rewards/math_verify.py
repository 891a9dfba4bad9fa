"""Mathematical equality by Hugging Face's math-verify (pip install 'cgrpo[math]'), in a process of its own with a
deadline: its parser can take minutes, or for ever, over a few characters."""
import logging
from typing import Any

from ..answers import final_answer, golds_in, same_answer, tagged_answer, text_of
from ..errors import ConfigError
from .adapters import reward

try:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify
except ImportError as error:
    raise ConfigError("reward 'math_verify' and TRL's accuracies need the package math-verify: pip install "
                      "'cgrpo[math]'") from error

# it says with every call that without its own alarm (which works on the main thread only) the caller must keep the time
logging.getLogger("math_verify").setLevel(logging.ERROR)
SECONDS = 5.0


@reward(timeout=SECONDS, process=True)
def math_verify_reward(completion: str | list, answer: Any = None, solution: Any = None) -> float | None:
    """1.0 where the tagged answer, or without a tag the whole completion, equals the column answer (or solution), else
    0.0; None where the row has no answer. math-verify is asked first; what it does not take grpo.answers may
    (text, a letter, an amount with its unit). What takes longer than 5 seconds is scored by on_reward_error.

    >>> math_verify_reward("<answer>\\\\frac{\\\\sqrt{2}}{2}</answer>", answer="$1/\\\\sqrt{2}$")
    1.0
    """
    gold = answer if answer is not None else solution
    if gold is None or gold == "":
        return None
    text = text_of(completion)
    inside = tagged_answer(text)
    given = parse(text, parsing_timeout=None) if inside is None else formula(inside)
    for wanted in golds_in(gold):
        if verify(formula(wanted), given, timeout_seconds=None):
            return 1.0
        if same_answer(final_answer(text) if inside is None else inside, wanted):
            return 1.0
    return 0.0


def formula(answer: str) -> list:
    """What math-verify reads in an answer that is nothing but that."""
    return parse(answer if "$" in answer or "\\boxed" in answer else f"${answer}$", parsing_timeout=None)


def equal_in_latex(text: str, gold: str) -> bool | None:
    """Whether the answer in a text equals the gold, None where the gold cannot be read: TRL's rule, by which an answer
    is what is boxed, else LaTeX that is announced as one."""
    wanted = parse(gold, parsing_timeout=None)
    latex = LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False,
                                  normalization_config=NormalizationConfig(units=True))
    given = parse(text, [latex], extraction_mode="first_match", parsing_timeout=None) if wanted else []
    return verify(wanted, given, timeout_seconds=None) if wanted else None


NAMES = {"math_verify": math_verify_reward}
