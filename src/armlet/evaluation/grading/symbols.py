"""Unicode symbols as LaTeX."""

import re
import unicodedata

SYMBOLS = {
    **dict.fromkeys("−–—‒‐‑﹣", "-"),
    **dict.fromkeys("×✕", r"\times "),
    **dict.fromkeys("⋅·∙", r"\cdot "),
    **{"÷": "/", "⁄": "/", "∕": "/", "，": ",", "。": ".", "、": ",", "：": ":", "；": ";", "（": "(", "）": ")"},
    **{
        "≤": r"\le ",
        "⩽": r"\le ",
        "≥": r"\ge ",
        "⩾": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "±": r"\pm ",
        "∓": r"\mp ",
    },
    **{
        "∞": r"\infty ",
        "π": r"\pi ",
        "θ": r"\theta ",
        "α": r"\alpha ",
        "β": r"\beta ",
        "γ": r"\gamma ",
        "λ": r"\lambda ",
    },
    **{"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "∖": r"\setminus "},
    **{
        "°": r"^\circ ",
        "º": r"^\circ ",
        "∠": r"\angle ",
        "△": r"\triangle ",
        "⟨": "(",
        "⟩": ")",
        "≡": r"\equiv ",
        "%": r"\%",
    },
    **{"“": '"', "”": '"', "„": '"', "’": "'", "‘": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u200b": ""},
}
POWERS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
INDICES = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}


def marks_as_units(text: str) -> str:
    """Feet and inches in words: 5'6" as "5 feet 6 inches"."""
    return re.sub(r"(?<![\w.])(\d+)\s*['′’]\s*(?:\\,)?\s*(\d+(?:\.\d+)?)\s*(?:[\"″”]|'')", r"\1 feet \2 inches", text)


def symbols_as_latex(text: str) -> str:
    """Unicode symbols as LaTeX: superscripts, fractions, roots, signs, Greek letters, and the digits of any script."""
    text = marks_as_units(text)
    text = re.sub(f"[{''.join(POWERS)}]+", lambda run: "^{" + "".join(POWERS[c] for c in run[0]) + "}", text)
    text = re.sub(f"[{''.join(INDICES)}]+", lambda run: "_{" + "".join(INDICES[c] for c in run[0]) + "}", text)
    text = re.sub(r"([√∛∜])\s*(\d+(?:\.\d+)?|\w)", lambda root: f"{ROOTS[root[1]]}{{{root[2]}}}", text)
    return re.sub(r"(?<!\\)%|[^\x00-\x7f]", _symbol, text)


def _symbol(match: re.Match[str]) -> str:
    character = match[0]
    if character in SYMBOLS or character in ROOTS:
        return SYMBOLS.get(character) or ROOTS.get(character, "")
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.digit(character))
    parts = unicodedata.normalize("NFKC", character).split("⁄")
    if len(parts) == 2:  # ½ is decomposed into 1⁄2
        return rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
    return parts[0] if len(parts[0]) == 1 else character
