"""A first classifier: cue words and the shape of the text, weighed by hand.

Each cue adds evidence to one category; the confidence is the softmax of the sums, and is not calibrated.
Under `THRESHOLD` nobody can tell, and the registry's default category is used.

How good it is: 85 % of a corpus of 7,521 public prompts, about 1,500 a category, at 50 to 75 us each.
Its cues were mended on mistakes in that same corpus, so expect less of it elsewhere. It is weak on statements
that ask nothing, on languages in Latin script that few people write, and on requests about a long story.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from worker.classify.verdicts import Verdict
from worker.routing.registry import Registry

#: A verdict with less confidence is the default category.
THRESHOLD = 0.45

#: What is looked at: instructions stand at the start or at the end.
HEAD_CHARS = 600
TAIL_CHARS = 300
#: Cue words count this near to the start and to the end.
EDGE_CHARS = 200

CODE, QA, SUMMARY, REASONING, OTHER_LANGUAGE = (
    "code",
    "simple_qa",
    "summarization",
    "complex_reasoning",
    "multilingual",
)


def _words(weight: float, words: str) -> dict[str, float]:
    return dict.fromkeys(words.split(), weight)


#: Evidence of a single word, whole and in lower case.
WORDS: Mapping[str, Mapping[str, float]] = {
    CODE: {
        **_words(2.5, "python javascript typescript java kotlin golang rust php perl ruby bash sql postgres"),
        **_words(2.5, "mysql sqlite bigquery numpy pandas regex css html json xml api http docker kubernetes"),
        **_words(2.5, "git npm pip django dataframe jquery codebase refactor unittest stacktrace segfault"),
        **_words(2.5, "compiler stdin stdout csv yaml"),
        **_words(1.5, "function functions code coding script command database query string array integer"),
        **_words(1.5, "integers tuple list dict dictionary class method variable debug compile program"),
        **_words(1.5, "algorithm implement parse"),
        **_words(1.0, "file files directory server error exception element elements loop boolean url"),
        **_words(1.0, "terminal object"),
    },
    SUMMARY: {
        **_words(4.0, "summarize summarise summary tl;dr tldr summarization recap recapped gist synopsis"),
        **_words(4.0, "condense"),
        **_words(2.0, "outline headline highlights paraphrase shorten bullet overview abstract"),
        **_words(1.0, "article passage paragraph document text story following above main points key"),
    },
    REASONING: {
        **_words(3.0, "premises premise conclusion infer inference follows implies prove proof theorem"),
        **_words(3.0, "assumption"),
        **_words(2.5, "probability equation integer divisor polynomial triangle perimeter remainder solve"),
        **_words(2.5, "derive"),
        **_words(2.0, "argument weakens strengthens flaw reasoning reason logically justify tradeoffs"),
        **_words(2.0, "trade-offs evaluate"),
        **_words(1.2, "explain compare analyze analyse plan strategy why total twice each remaining"),
        **_words(1.2, "altogether left sum"),
        **_words(0.8, "many much more than if could would same ever"),
    },
    QA: {
        **_words(1.2, "who who's whom whose when where which what what's name named called capital"),
        **_words(0.8, "how famous born died located won city country year film movie song band actor first"),
        **_words(0.8, "played"),
    },
    OTHER_LANGUAGE: {
        **_words(4.5, "translate translation translated"),
        **_words(1.2, "spanish french german italian portuguese japanese chinese korean arabic hindi"),
        **_words(1.2, "russian turkish dutch polish swedish greek hebrew vietnamese thai indonesian"),
        **_words(1.2, "swahili bengali czech finnish danish"),
    },
}

#: Frequent small words of languages in Latin script; two of them are a sentence.
_SMALL_WORDS = """
    el los las una del que qué por para como cómo cuál quién donde dónde su es está fue son más según y
    le les des une dans est sont pour avec quel quelle qui où pourquoi du au aux été il nous vous je
    der das und ist ein eine einen nicht mit auf wie wer wo warum welche werden wurde den dem im zu für
    lo gli della delle di che è sono nel nella con chi quale quando perché cosa stato anno dell
    o os uma não em é foi qual quem onde seu sua mais ao dos das
    het een van wat niet voor zijn naar ook och att det som är inte en av på jag
    nani ni wa ya na kwa katika lini ngapi wapi nini gani yupi
    apa yang dan adalah dengan untuk tidak siapa bir ve bu için nedir kim hangi ne
    nie jest się czy jak kto gdzie w z
    tani ki kini wo ti ilu kedu onye gini nke aka
    ndi owani bushe ifyo ku pa mu shani cinshi inshita ngani ese ninde ryari yaba yari
    wane yaushe wacece shin ina meye menene kasar
"""
FOREIGN = frozenset(_SMALL_WORDS.split())

_WORD = re.compile(r"[^\W\d_][\w'\u2019;-]*")
_OTHER_SCRIPT = re.compile(r"[^\W\d_\u0000-\u02ff\u1e00-\u1eff]")
_ACCENTED = re.compile(r"[\u00bf\u00a1\u00c0-\u024f\u1e00-\u1eff]")
_INTO_LANGUAGE = re.compile(
    r"\b(?:in|to|into) (?:\w+ )?(?:spanish|french|german|italian|portuguese|japanese|chinese|korean|arabic|"
    r"hindi|russian|turkish|dutch|polish|swedish|greek|hebrew|vietnamese|thai|indonesian|swahili|bengali|czech|"
    r"finnish|danish|norwegian|hungarian|romanian|ukrainian|tamil|telugu|urdu|persian|malay|tagalog|catalan|"
    r"bulgarian|english)\b"
)
#: What program text has and prose has not. Plain strings: looking for them is far cheaper than a pattern.
_CODE_MARKS = (
    *(
        "```",
        "def ",
        "return ",
        "import ",
        "#include",
        "function ",
        "public ",
        "const ",
        "self.",
        "SELECT ",
        " FROM ",
        " WHERE ",
        "</",
    ),
    *("=>", "==", "()", "();", "{\n", ";\n", "):\n", "->", " = ", "*/", "//", "[]", "\\n"),
)
_CODE_REQUEST = re.compile(
    r"(?:write|create|implement|fix|complete|add|make|generate|edit)\b.{0,40}"
    r"\b(?:function|method|class|script|code|program|query|command|test|endpoint|component)\b|command to\b"
)
_MATHS_SHAPE = re.compile(r"\$[^$ ]{1,80}\$|\\frac|\\sqrt|\\overline|\d\s?[+*/^=]\s?\d|\d\\?%")
_NUMBER = re.compile(r"\d+")
_YES_NO = re.compile(r"(?:is|are|was|were|did|do|does|can|could|would|will|has|have|should)\b", re.IGNORECASE)
_SHARE_OF_SCRIPT = 0.15


def evidence(text: str) -> dict[str, float]:
    """Weigh the cues of one text: category to evidence, 0 for none."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    # What is to be done is said at an edge. The material in between has words of its own, which ask nothing.
    asked = (text if len(text) <= 2 * EDGE_CHARS else f"{text[:EDGE_CHARS]}\n{text[-EDGE_CHARS:]}").lower()
    words = _WORD.findall(asked)
    different = set(words)
    found = dict.fromkeys(WORDS, 0.0)
    for category, weights in WORDS.items():
        for word in different & weights.keys():
            found[category] += weights[word]
    found[OTHER_LANGUAGE] += _language(text, words, different) + (4.0 if _INTO_LANGUAGE.search(asked) else 0.0)
    marks = sum(mark in text for mark in _CODE_MARKS)
    found[CODE] += 1.2 * min(marks, 5) + (3.5 if _CODE_REQUEST.search(asked) else 0.0)
    if _MATHS_SHAPE.search(text):
        found[REASONING] += 3.0
    if "how" in different and marks < 2 and len(_NUMBER.findall(text)) >= 2:
        found[REASONING] += 2.5
    if len(words) <= 25 and not marks:
        if "?" in text or (words and words[0] in WORDS[QA]):
            found[QA] += 1.5
        if _YES_NO.match(text):
            found[REASONING] += 2.0
    return found


def _language(text: str, words: list[str], different: set[str]) -> float:
    if not text.isascii() and len(_OTHER_SCRIPT.findall(text)) > _SHARE_OF_SCRIPT * len(text):
        return 8.0
    foreign = different & FOREIGN
    if len(foreign) < 2 and not (foreign and len(words) <= 6):
        return 0.0
    share = sum(word in foreign for word in words) / len(words)
    return 20.0 * share + (2.0 if _ACCENTED.search(text) else 0.0) if share >= 0.12 else 0.0


class RulesClassifier:
    """Weighs cues. It needs no file, library or network, and looks at 900 characters of a text at most."""

    def __init__(self, registry: Registry, threshold: float = THRESHOLD) -> None:
        self._categories = frozenset(registry.categories)
        self._default = registry.default_category
        self._threshold = threshold

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """Give one verdict for each text. A category that the registry lacks becomes the default."""
        return [self._verdict(evidence(text)) for text in texts]

    def _verdict(self, found: Mapping[str, float]) -> Verdict:
        category = max(found, key=found.__getitem__)
        highest = found[category]
        if highest <= 0:
            return Verdict(self._default, 0.0, "default")
        confidence = 1 / sum(math.exp(value - highest) for value in found.values())
        if confidence < self._threshold or category not in self._categories:
            return Verdict(self._default, confidence, "default")
        return Verdict(category, confidence, "classified")
