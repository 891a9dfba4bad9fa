"""What an answer is dressed in: markup, quotes, the marks of a formula, \\text{}, a full stop."""
import re

LEADING = re.compile(r"^\s*(?:=|\\approx(?![A-Za-z])|≈)\s*")      # "= 5"
MOST_LAYERS = 8
MARKS = "*_`\"“”‘’' \t\n"
WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|boldsymbol)\s*\{([^{}]*)\}")
# $$...$$, \[...\], and within a line $...$ (which a digit does not follow: "$6 = $4.00" is money) and \(...\)
FORMULA = re.compile(r"\$\$(?P<a>.*?)\$\$|\\\[(?P<b>(?:(?!\\\[).)*?)\\\]|(?<!\\)\$(?P<c>(?:[^$\n\\]|\\[^\n])+)\$(?!\d)"
                     r"|\\\((?P<d>(?:(?!\\\()[^\n])*?)\\\)", re.DOTALL)


def inside_of(formula: re.Match[str]) -> str:
    """What a formula's marks hold."""
    return next(part for part in formula.groups() if part is not None)


def unwrapped(answer: str) -> str:
    r"""An answer out of its dress.

    >>> unwrapped(r"**$\text{(A)}$.**"), unwrapped("`Paris`."), unwrapped("$$ 42 $$")
    ('(A)', 'Paris', '42')
    """
    for _ in range(MOST_LAYERS):
        before = answer
        answer = answer.strip(MARKS)
        if answer.endswith((".", "。")) and not answer.endswith(".."):
            answer = answer[:-1]
        answer = LEADING.sub("", answer)
        for pattern in (FORMULA, WRAPPED):
            whole = pattern.fullmatch(answer)
            if whole is not None:
                answer = inside_of(whole)
        if answer == before:
            break
    return answer
