r"""Rewrites an answer into one plain notation: no decoration and fonts, LaTeX for symbols, one form of each number.

`in_plain_notation` is a fixed sequence of steps, each of which works on the result of the one before it. The result
is a formula that latex2sympy reads correctly, or words without commands around them.
"""

import re
from functools import lru_cache

from armlet.evaluation.grading.number_words import SIGN_WORD, number_at_start, words_as_digits
from armlet.evaluation.grading.symbols import symbols_as_latex

LONGEST = 1000  # maximum length of an answer that is parsed; a longer answer is only compared as text
LAYOUT_COMMAND = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|(?:display|text|script)style|limits|centering|bf|rm|it|sf|tt|em|large|Large|LARGE|huge|"
    r"Huge|small|normalsize|boldmath|bfseries|itshape|noindent|hfill|therefore|blacksquare|square|qed|checkmark)(?![a-zA-Z])\.?"
)
SPACE = re.compile(
    r"(?<!\\)\\(?:(?:tag\*?|phantom|[hv]space)\s*\{[^{}]*\}|[,;:! ]|q?quad(?![a-zA-Z])|newline(?![a-zA-Z]))|~|&nbsp;"
)
COLOUR = re.compile(
    r"\\bbox\s*\[[^\]]*\]"
    r"|\\(?:textcolor|colorbox|color|fcolorbox\s*\{[^{}]*\})\s*(?:\[[^\]]*\])?\s*\{[a-zA-Z0-9!,. ]*\}"
)
WRAPPER = re.compile(
    r"\\(?:text\w*|math(?!bb|cal|frak)\w+|mbox|hbox|fbox|framebox|boxed|bm|boldsymbol|underline|emph|ensuremath|pmb|"
    r"operatorname\*?|uline|cancel|underbrace)\s*\{"
)
FRAC_COMMAND = re.compile(r"\\(?:[dtcs]|nice)?frac(?![a-zA-Z])\s*(\d|\{[^{}]*\})\s*(\d|\{[^{}]*\})")
# Separators of thousands: 1,234 and 1\,234 and 1 234; but "100, 200" is a list.
THOUSANDS = re.compile(r"(?<![\d.,^_])\d{1,3}(?:(?:,(?:\\!\s*)?|'|\{,\}|\\[,;: ]\s?|~| )\d{3})+(?!\d)")
MOST_THOUSANDS = 5  # commas in one number; a longer text is a list of numbers of three digits
REPEATING = re.compile(r"(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*\{?(\d+)\}?|(\d)\4\4+(?:\\[lc]?dots|\.\.\.|…))")
SCIENTIFIC = re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?|\.\d+)[eE]([+-]?\d+)(?!\w)")
MIXED = re.compile(r"(?<![\d.}^_a-zA-Z/])(\d+)(?:\s*\\frac\{(\d+)\}\{(\d+)\}|\s+(\d+)\s*/\s*(\d+)(?![\d.]))")
FUNCTION_NAMES = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi|theta|alpha|beta|infty|sqrt"
BARE_FUNCTION = re.compile(rf"(?<![\\a-zA-Z])({FUNCTION_NAMES})(?![a-zA-Z])")
# Introductions of an answer: "The answer is", "The area is", "=", "≈", "(x, y) =".
LEAD = re.compile(
    r"^(?:(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|option|choice)(?:\s+is)?\s*[:=]?\s*(?=\S)"
    r"|[A-Za-z][A-Za-z ]{2,60}\s(?:is|are|was|equals)\s(?=\D{0,3}\d)|(?:approximately|about|exactly)\s"
    r"|=|:|\\(?:approx|sim|Rightarrow|rightarrow|implies|to)(?![a-zA-Z])|\([a-z](?:\s*,\s*[a-z])+\)\s*=)\s*",
    re.IGNORECASE,
)


@lru_cache(maxsize=1 << 14)
def in_plain_notation(answer: str) -> str:
    """An answer in plain notation; words keep their letters, and have no command around them.

    Texts of more than `LONGEST` characters are returned unchanged, so that the time is bounded.
    """
    if len(answer) > LONGEST:
        return " ".join(answer.split())
    for step in (
        symbols_as_latex,
        _without_markup,
        _plain_numbers,
        _without_layout,
        _plain_words,
        _plain_formula,
        _trimmed,
    ):
        answer = step(answer)
    return answer


def _without_markup(answer: str) -> str:
    r"""Removes the dollar signs and brackets around a formula, and quotation marks; `\$` stays a currency."""
    answer = re.sub(r"\\text\s*\{\s*\\?\$\s*\}", r"\\$", answer)
    answer = re.sub(r"^\s*\\\$(.*)\\\$\s*$", r"\1", answer, flags=re.DOTALL)
    if len(re.findall(r"(?<!\\)\$", answer)) % 2:  # an unpaired dollar sign is a currency
        answer = re.sub(r"(?<!\\)\$(?=\s*[\d.])", r"\\$", answer, count=1)
    answer = answer.replace("{:}", ":")
    return re.sub(r"(?<!\\)\$|(?<!\\)\\[()\[\]]|[\"`]|\*\*|''", "", answer).replace(r"\\$", r"\$")


def _plain_numbers(answer: str) -> str:
    """Removes separators of thousands, and writes repeating decimals as fractions and 1e5 as a product."""
    answer = THOUSANDS.sub(lambda number: _joined_thousands(number, answer), answer)
    answer = REPEATING.sub(_repeating_fraction, answer)
    answer = re.sub(r"(?<=\d)\s*\\(?:mathrm|text)\s*\{([eE])\}\s*(?=[\d+-])", r"\1", answer)
    answer = SCIENTIFIC.sub(r"\1 \\times 10^{\2}", answer)
    answer = re.sub(r"(?<=\d)\s+[xX]\s+(?=\d)", r" \\times ", answer)
    return re.sub(r"(?<=\d)\s*[xX*]\s*(?=10\s*(?:\^|\*\*))", r" \\times ", answer)


def _joined_thousands(number: re.Match[str], answer: str) -> str:
    before = answer[: number.start()]
    inside = len(re.findall(r"[(\[]|\\\{", before)) > len(re.findall(r"[)\]]|\\\}", before))
    is_list = inside or number[0].count(",") > MOST_THOUSANDS  # (1,234) is a pair
    if is_list and re.fullmatch(r"[\d,]+", number[0]):
        return number[0]
    return re.sub(r"\D", "", number[0])


def _repeating_fraction(match: re.Match[str]) -> str:
    whole, fixed, period = match[1] or "0", match[2], match[3] or match[4]
    if len(whole + fixed + period) > 1000:  # Python refuses to read numbers of more than 4,300 digits
        return match[0]
    top = int(whole + fixed + period) - int(whole + fixed)
    return rf"\frac{{{top}}}{{{(10 ** len(period) - 1) * 10 ** len(fixed)}}}"


def _without_layout(answer: str) -> str:
    """Removes colours, fonts, boxes, sizes and spacing; the text in a font command stays, with spaces around it."""
    answer = SPACE.sub(" ", COLOUR.sub("", LAYOUT_COMMAND.sub(" ", answer)))
    for _ in range(20):  # maximum depth of nesting
        wrapper = WRAPPER.search(answer)
        end = closing_brace(answer, wrapper.end()) if wrapper else None
        if wrapper is None or end is None:
            break
        answer = f"{answer[: wrapper.start()]} {answer[wrapper.end() : end]} {answer[end + 1 :]}"
    return re.sub(r"^\s*\{([^{},]*(?:\{[^{}]*\}[^{},]*)*)\}\s*$", r"\1", answer)


def closing_brace(text: str, start: int) -> int | None:
    r"""The index of the brace that closes the one just before `start`; `\{` and `\}` are literal braces."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def _plain_words(answer: str) -> str:
    """Numbers in words as digits, and "minus 4" as -4."""
    name, equals, value = answer.rpartition("=")
    if not re.search(r"\d", answer) and number_at_start(value):
        value = words_as_digits(value)
    sign = SIGN_WORD.match(value)
    return f"{name}{equals}-{value[sign.end() :]}" if sign else f"{name}{equals}{value}"


SPELLINGS = [
    (r"(?<![\w.])(\d+)(?:\s*-\s*|\s+and\s+)(\d+/\d+)(?=\s+[a-z]{3})", r"\1 \2"),  # 5 and 2/3 miles
    (r"(?:\{\})?[\^_]\{?(\d+)\}?\s*C\s*_\s*\{?(\d+)\}?", r"\\binom{\1}{\2}"),
    (
        r"(?:\{\})?[\^_]\{?(\d+)\}?\s*P\s*_\s*\{?(\d+)\}?|(?<![\w\\])P\((\d+), *(\d+)\)",
        r"\\frac{\1\3!}{(\1\3-\2\4)!}",
    ),
    (r"\\?\$\s*(\d+)\s+and\s+(\d+)\s+cents?\b", r"\1 dollars \2 cents"),
    (r"\\(?:d|t)binom(?![a-zA-Z])", r"\\binom"),
    (r"\\(leq|leqslant|leqq)(?![a-zA-Z])|<=|=<", r"\\le "),
    (r"\\(geq|geqslant|geqq)(?![a-zA-Z])|>=", r"\\ge "),
    (r"\\(neq)(?![a-zA-Z])|!=", r"\\ne "),
    (r"\\lt(?![a-zA-Z])", "<"),
    (r"\\gt(?![a-zA-Z])", ">"),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"),
    (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"\\[lr]vert(?![a-zA-Z])", "|"),
    (r"\\langle(?![a-zA-Z])", "("),
    (r"\\rangle(?![a-zA-Z])", ")"),
    (r"(?<=\d)\s*\^\s*\{o\}", r"^\\circ "),
    (r"\^\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])\s*\}?|\\(?:degree|degrees)(?![a-zA-Z])", " degrees "),
    (r"(\d+) degrees\s*(\d+)\s*'(?!\w)", r"\1 degrees \2 arcminutes"),
    (r"(\\(?:sin|cos|tan|cot|sec|csc))\s*[({]?\s*(\d+)\s+degrees\s*[)}]?", r"\1(\\frac{\2\\pi}{180})"),
    (r"\(\s*\\begin\s*\{array\}\s*\{[clr|]*\}(.*?)\\end\s*\{array\}\s*\)", r"\\begin{pmatrix}\1\\end{pmatrix}"),
    (r"(?<=[\w}])\s+\((?=[^()]*[^\W\d_]{2})[^()\\\d]*\)\s*$", ""),  # an aside in words
    (r"\\lg(?![a-zA-Z])", r"\\log "),
    (r"\^\s*\{?\s*(?:st|nd|rd|th)\s*\}?(?![a-zA-Z])", " th"),
    (r"(?<=\d)\s*\\frac\s*\{\s*(k?m|cm|ft|mi)\s*\}\s*\{\s*(s|h|hr|min)\s*\}", r" \1/\2"),
    (r"\((\d+)\)\s*_", r"\1_"),
    (r"^\s*\[(-?\d+)\]\s*$", r"\1"),
    (r"^\s*\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\\mid|:|\|)(.*[<>].*|.*\\[lgn]e[ q].*)\\\}\s*$", r"\1"),
    (r"\\log_\{?e\}?(?![a-zA-Z])", r"\\ln "),
    (r"\\(?:varnothing|emptyset)(?![a-zA-Z])|\bempty set\b", r"\\{\\}"),
    (r"\\(?:dots|ldots|cdots|dotsc)(?![a-zA-Z])|\.\.\.|…", r"\\ldots "),
    (r"\(?\s*\\?(?:p?mod|bmod)\b\s*\{?\s*(\w+)\s*\}?\s*\)?", r" \\pmod{\1}"),
    (r"(\w+)\s*\\choose\s*(\w+)|(?<![a-zA-Z\\])C\((\d+), *(\d+)\)", r"\\binom{\1\3}{\2\4}"),
    (r"\b(\d+) (?:out of|in) (\d+)\b", r"\\frac{\1}{\2}"),
    (r"\*\*", "^"),
    (r"(?<![\\^])\*", r"\\cdot "),
    (r"\^\s*(-?\d+)", r"^{\1}"),
    (r"(?<![\d.])\.(?=\d)", "0."),
    (r"^\s*\](.*),(.*)\[\s*$", r"(\1,\2)"),  # an open interval in French notation
    (r"(?<![\\a-zA-Z_^}\]])\{([^{}]*,[^{}]*)\}", r"\\{\1\\}"),  # {1, 2} as a set, in plain text
    (r"^\s*(?:all )?(?:the )?(?:set of )?(?:all )?real(?:s| numbers)\s*$", r"(-\\infty,\\infty)"),
    (r"^\s*\\mathbb\s*\{?R\}?\s*$", r"(-\\infty,\\infty)"),
    (r"\\mathbb\s+R", r"\\mathbb{R}"),
    (r"\+\s*\\infty", r"\\infty"),
    (r"^\s*([a-zA-Z]\w*)\s*\\approx", r"\1 ="),
    (r"(?<=[\w})])\s*\\approx.*$", ""),  # of "2\\pi ≈ 6.28", the exact value
]
"""Patterns and replacements for other things with several spellings, in the order in which they are applied."""


def _plain_formula(answer: str) -> str:
    r"""Writes each command in one spelling, mixed numbers as sums, and `sqrt(2)` and `pi` as commands."""
    for _ in range(3):  # nested fractions
        answer = FRAC_COMMAND.sub(lambda f: r"\frac{" + f[1].strip("{}") + "}{" + f[2].strip("{}") + "}", answer)
    answer = re.sub(r"\\(?:[dtcs]|nice)frac(?![a-zA-Z])", r"\\frac", answer)
    for pattern, replacement in SPELLINGS:
        answer = re.sub(pattern, replacement, answer)
    answer = MIXED.sub(_mixed_sum, answer)
    answer = BARE_FUNCTION.sub(r"\\\1 ", re.sub(r"(?<![\\a-zA-Z])(?:infinity|inf)(?![a-zA-Z])", "infty", answer))
    answer = re.sub(r"\\sqrt\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)", r"\\sqrt{\1}", answer)
    return re.sub(r"\\sqrt\s*(\[\w+\])?\s*(\d+)", lambda root: rf"\sqrt{root[1] or ''}{{{root[2]}}}", answer)


def _mixed_sum(match: re.Match[str]) -> str:
    whole, top, bottom = match[1], match[2] or match[4], match[3] or match[5]
    proper = (len(top), top) < (len(bottom), bottom)
    return rf"({whole}+\frac{{{top}}}{{{bottom}}})" if proper else match[0]


def _trimmed(answer: str) -> str:
    """Removes introductions ("Answer:", "=", "≈", "x ∈"), and the spaces and full stops around the answer."""
    before = None
    while answer != before:
        before = answer
        answer = re.sub(r"^\s*[a-zA-Z]\s*\\in(?![a-zA-Z])", "", LEAD.sub("", answer))
        answer = " ".join(answer.split()).strip(" ,;:").removesuffix(".").strip()
    return answer
