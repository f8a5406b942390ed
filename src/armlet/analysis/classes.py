"""Which kind of word a token is: the classes of the paper's Section 6 and Figure 7."""

CLASSES = ("digits", "operators", "conjunctions", "other")

OPERATORS = frozenset("+-−*/=<>^×·÷±≤≥≠≈√∑%") | {"<=", ">=", "==", "!=", "**", "+=", "->"}

CONJUNCTIONS = frozenset(
    """
    and or nor but yet so for if then else because since although though while whereas unless until when whenever
    where wherever whether that than as after before once therefore thus hence however moreover otherwise
    """.split()  # noqa: SIM905 - a list of words is easier to read than a list of quotes
)
"""English conjunctions, and adverbs that join sentences. The paper does not list its own."""


def classify(word: str) -> str:
    """The class of a token by its text, without the space around it; a part of a longer word is "other"."""
    text = word.strip()
    if text.isdecimal():
        return "digits"
    if text in OPERATORS:
        return "operators"
    return "conjunctions" if text.lower() in CONJUNCTIONS else "other"
