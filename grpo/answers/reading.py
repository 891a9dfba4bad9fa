r"""Where the answer of a completion stands: in tags, after ####, in a box, after words that announce it, else the last
value of the text."""
import re
from typing import Any

from .boxes import boxed, boxes_in
from .choices import LETTERS, WITH_REASON
from .dress import FORMULA, MARKS, WRAPPED
from .last_value import CHANGING, NUMBER, RIGHT, following, last, last_value

MOST_TEXT = 400_000                          # characters of a completion, from its end, that are looked through
MOST_FORMULA = 200                           # of a completion that is nothing but its answer
# "the final answer to the question must therefore be: **"
ANNOUNCED = re.compile(
    r"(?:(?:final\s+answer|\banswer|\bsolution\s+(?=is)|(?:correct|right|best)\s+(?:option|choice)\s+(?=is)"
    r"|ответ|antwort|réponse|respuesta|resposta|risposta|答え|정답|الإجابة|答案)s?"
    r"(?:\s+(?:to|of|for)\s[^.\n:=]{0,80}?|\s*\([^()\n]{1,40}\))?"
    r"(?:\s+(?:must|should|would|could|will|can|may)\b)?"
    r"(?:[*_`]{0,3}\s*(?:is|are|be|:|=|：|是|为|は|은|هي)[*_`:：\s]*)+"
    r"|\banswer[*_]{0,3}(?:\s*\n+\s*|\s+(?=[$\\]))|故选)"
    r"(?:\\?[\"“])?"
    r"(?:(?:therefore|thus|hence|then|indeed|approximately|about|roughly|exactly|simply|just|equal\s+to|given\s+by"
    r"|that|:)[*_:,\s]*)*", re.IGNORECASE)
STOP = re.compile(r"\.(?=\s|$)|[\n。]|です|입니다|<(?:\||/s>|eos|end)|$")    # the end of what is announced
EQUALS = re.compile(r"[^<>!=]=")
# after a number that a sentence begins with: what explains it, and is no unit
EXPLAINED = re.compile(r"\s*(?:,\s|of\s+(?:the|an?|these|those|his|her|their)\b|\(|because\b|since\b|as\b|so\b"
                       r"|which\b|and\s+(?![\d$\\(-])|;|—|-\s)")
ASIDE = re.compile(r"\s+\([^()]*[A-Za-z]{2,}[^()]*\)$")    # "5 apples (out of 12)"
NEGATED = re.compile(r"\b(?:not|no)\b|n't\b", re.IGNORECASE)
MADE_OF = re.compile(r"\b(?:of|minus|negative|plus|times|over|than|or|by|under|below|above|about|at\s+least|at\s+most)"
                     r"\s*$", re.IGNORECASE)
VERB = re.compile(r"\b(?:is|are|was|were|be|equals?|has|have|had|makes?|costs?|gets?|needs?)\b", re.IGNORECASE)
# words, but for those of LaTeX
WORD = re.compile(r"[а-яА-Я\u0590-\u07ff\u0e00-\u0eff\u3040-\ud7ff]|(?<![\\A-Za-z])[A-Za-z]{2,}(?![A-Za-z]*\})|\n"
                  r"|(?<=\d)[A-Za-z]{2}")
# of Markdown
HEADING = re.compile(r"(?:step|part|case|final|answer|conclusion|solution)\b(?!.*\bis\b)", re.IGNORECASE)
LATER = re.compile(rf"[$\\\d(\[{{-]|[{LETTERS}]\b(?!\s[a-z])")
LABELLED = re.compile(r"\s*[A-Z]\s*:\s+(\S.*)")            # "A: 36"
MOST_UNIT_WORDS = 4


def text_of(completion: Any) -> str:
    """The text of a completion: itself, or the content of its last message."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def tagged(text: str, tag: str = "answer") -> str | None:
    """What stands between the last <tag> and the next </tag> (or the end), stripped; None without an opening tag."""
    _, found, rest = text.rpartition(f"<{tag}>")
    return rest.split(f"</{tag}>")[0].strip() if found else None


def tagged_answer(text: str) -> str | None:
    r"""What stands between the last <answer> and the next </answer>, stripped, and out of its box where it is in one;
    None where either tag is missing: an answer that was cut off is none.

    >>> tagged_answer("<answer>5</answer> no, <answer> 12 </answer>"), tagged_answer("<answer>1")
    ('12', None)
    >>> tagged_answer(r"<answer>\boxed{5}</answer>")
    '5'
    """
    return unboxed(tagged(text) or "") if "</answer>" in text.rpartition("<answer>")[2] else None


def unboxed(answer: str) -> str:
    """The answer in a tag: what its box holds, or what it announces, where it has that."""
    inside = boxed(answer) if "\\" in answer else None
    words = WRAPPED.sub(r"\1", answer if inside is None else inside)
    said = announced(words)
    if said is not None and said[0]:
        return said[0]
    return answer if inside is None else inside


def announced(text: str) -> tuple[str, ...] | None:
    """What the last "answer is", "Answer:" or the like announces, and, where that is a sentence, the value in it as a
    second reading; None where nothing is announced.

    >>> announced("The answer is: 42"), announced("Final Answer: The final answer is $42$. I hope it is correct.")
    (('42',), ('42',))
    >>> announced("The answer is that she has 5 apples.")
    ('she has 5 apples', '5')
    """
    text = text[-MOST_TEXT:]
    found = last(ANNOUNCED, text)
    if found is None:
        return None
    formula = FORMULA.match(text, found.end())
    if formula is not None:
        return (following(text, formula),)
    end = STOP.search(text, found.end())
    said = text[found.end():end.start() if end else len(text)].strip(MARKS)
    return said_value(said if said.endswith(("}", ")", "]")) else said.rstrip(",;:!?"))


def said_value(said: str) -> tuple[str, ...]:
    """What a sentence like "9 * 2 = $18, every day" comes down to: what follows its last "=", the number it starts
    with, or itself and the last value in it."""
    if (chosen := WITH_REASON.match(said)) is not None:
        return (chosen[1],)
    right = said.rpartition("=")[2].strip(MARKS) if EQUALS.search(said) and not said.startswith("$") else said
    start = NUMBER.match(right)
    if start is not None:
        right = ASIDE.sub("", right)
        more = RIGHT.match(right, start.end())
        end = more.end() if more else start.end()
        after = right[end:]
        explained = EXPLAINED.match(after) or len(after.split()) > MOST_UNIT_WORDS and not CHANGING.match(after)
        return (right[:end],) if explained else (right,)
    value = stated(said) if right == said else None
    return (right,) if value is None else (said, value)


def stated(sentence: str) -> str | None:
    """The value that a sentence ends with; None where it has none, denies it, or makes another one of it.

    >>> stated("she has 5 apples"), stated("half of 5"), stated("it is not 5")
    ('5', None, None)
    """
    value = last_value(sentence) if re.match(r"[A-Za-z]+\s", sentence) else None
    if value is None or value == sentence or NEGATED.search(sentence):
        return None
    return None if MADE_OF.search(sentence[:sentence.rfind(value)]) else value


def final_answer(text: str) -> str:
    """The answer a completion gives: tagged, after ####, boxed or announced (whichever comes last), else its last
    value, else all of it.

    >>> final_answer("9 eggs are left. The answer is 9 * 2 = $18, every day."), final_answer("first 3, then 4")
    ('$18', '4')
    """
    return answers_in(text)[0]


def answers_in(text: str) -> tuple[str, ...]:
    """The readings of the one answer that a completion gives: mostly one; of a sentence that announces a value both."""
    text = (text.rpartition("</think>")[2].strip() or text)[-MOST_TEXT:]
    if (answer := tagged(text)) is not None:
        answer = unboxed(answer)
        value = stated(answer) if VERB.search(answer) else None
        return (answer,) if value is None else (answer, value)
    if "<think>" in text and "</think>" not in text:
        return ("",)                                                  # cut off before it answers
    line, _, rest = text.rpartition("####")[2].strip().partition("\n")
    if "####" in text and not (HEADING.match(line) or rest.strip() and not re.search(r"\d", line)):
        return (unboxed(line.strip()),)
    inside = boxed(text)
    if inside is not None:
        return (inside and later_announcement(text)) or (unboxed(inside),)
    said = announced(text)
    if said is not None and said[0]:
        return said
    if len(text) < MOST_FORMULA and not WORD.search(text):
        labelled = LABELLED.fullmatch(text)
        return (text.strip(), *([labelled[1].strip()] if labelled else []))
    value = last_value(text)
    return (text.strip() if value is None else value,)


def later_announcement(text: str) -> tuple[str, ...] | None:
    """What is announced as a formula or a number after the last box ("Final Answer: The final answer is $5$")."""
    *_, (_, end, _) = boxes_in(text)
    found = last(ANNOUNCED, text[end:])
    return announced(text[end:]) if found and LATER.match(text, end + found.end()) else None


def latex_answer(text: str) -> str | None:
    r"""The answer by TRL's rule: boxed, or a formula that is announced; None for anything else.

    >>> latex_answer("The answer is $5$."), latex_answer("The answer is 5.")
    ('5', None)
    """
    text = text[-MOST_TEXT:]
    inside = boxed(text)
    if inside is not None:
        return inside or None
    found = last(ANNOUNCED, text) if "\\" in text or "$" in text else None
    formula = FORMULA.match(text, found.end()) if found else None
    return following(text, formula) if formula else None
