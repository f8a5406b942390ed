r"""Two answers are equal by what they are: `a == b` is right as \boxed{a} for the gold b, `a != b` is wrong.

Written after the kinds of reports about math-verify, lm-eval, Qwen2.5-Math, simple-evals and others, with other values.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armlet.evaluation.grading.equality import same_answer
from armlet.evaluation.grading.grade import grade

KINDS = {
    "exact numbers are compared exactly": r"""
        2^{-70} != 2^{-71} || \frac{1}{5^{30}} != \frac{1}{5^{31}} || 10^{-12} != 10^{-13} || 10^{-8} != 0
        \frac{1}{20!} != \frac{1}{22!} || 3.1\times 10^{-27} != 3.2\times 10^{-27} || \pi^{-40} != \pi^{-41}
        1-10^{-30} != 1 || 123456789012 != 123456789013 || 3^{50} == 717897987691852588770249
        3^{50} != 717897987691852588770250 || 2^{-3} == 0.125 || 10!/8! == 90
        \frac{\sqrt{2}}{2} == \frac{1}{\sqrt{2}} || 8^{1/2} == 2\sqrt{2} || 22/7 != \pi || e^{10} != 22026
        \sqrt[3]7 == \sqrt[3]{7} || 22-6m == -6m+22 || 22-6m != 16 || [68] == 68 || 101,103,107,109,113,127,131 != 101
        101,103,107,109,113,127,131 == 101, 103, 107, 109, 113, 127, 131 || (B, D) == B, D
        {}^{9}P_{3} == 504 || P(6,2) == 30 || {}^9C_3 == 84 || P(6,2) != 36 || \frac{a}{b} = \frac57 == \frac57
        \log 100 == 2 || \ln e^3 == 3 || 4! != 4 || 4! == 24 || 2^{200} != 2^{200}+1 || 100! != 100!+1
        1-2^{-200} != 1 || \binom{200}{100} != \binom{200}{100}+1 || \sqrt{2}+10^{-55} != \sqrt2
        \sqrt{10^{120}+1} != 10^{60} || \sqrt{3+2\sqrt2} == 1+\sqrt2 || \ln 2+\ln 3 == \ln 6""",
    "a decimal equals what it is rounded from": r"""
        0.142857142857 == \frac{1}{7} || 0.14 != \frac{1}{7} || 1.41421356 == \sqrt{2} || 1.41 != \sqrt{2}
        0.6666667 == \frac{2}{3} || 0.666666 == \frac{2}{3} || 3.14 != \pi || 3.14159265 == \pi || 2.50 == 5/2
        0.98765431 != 0.98765439 || 2.000001 != 2 || 1000000.5 != 1000000 || -0.333333 != 1/3
        \frac{1}{3} == 0.333333333 || \frac{1}{3} != 0.33333""",
    "numbers are written in many ways": r"""
        0.00001 == 1e-05 || 100000000000000000 == 1e17 || 1e-3 != 0.01 || 4E5 == 400000 || 4 x 10^5 == 400000
        4*10^5 == 400000 || 12,345 == 12345 || 12\,345 == 12345 || 12{,}345.6 == 12345.6 || 12 345 == 12345
        3,500 != 3 || 7. == 7 || +9 == 9 || -1\frac{1}{2} == -1.5 || 5 1/2 == 5.5 || 5 1/2 != \frac{5}{2}
        5\tfrac{1}{2} == \frac{11}{2} || 0.\overline{27} == \frac{3}{11} || 0.1\overline{6} == \frac16
        0.\overline{3} != 0.3 || 0.777... == 7/9 || ¾ == 0.75 || 1¾ == \frac{7}{4} || √7 == \sqrt{7}
        3√7 == 3\sqrt{7} || −8 == -8 || −8 != 8 || ４３ == 43 || 10⁻³ == 0.001 || x³ == x^3 || 6÷4 == 1.5
        π/6 == \frac{\pi}{6} || pi/6 == \frac{\pi}{6} || 2sqrt(3) == 2\sqrt3 || \exp(2) == e^2
        1.5\mathrm{e}3 == 1500 || 12'345 == 12345 || \text{minus } 4 == -4 || \text{Negative }\frac12 == -0.5
        {6 \choose 2} == 15 || ∞ == \infty || \sin 30^\circ == \frac12 || 3 out of 5 == 0.6""",
    "decoration says nothing": r"""
        \textbf{9} == 9 || {\color{blue} 9} == 9 || \colorbox{yellow}{9} == 9 || \fcolorbox{red}{white}{9} == 9
        \bbox[pink]{9} == 9 || \underline{9} == 9 || \fbox{9} == 9 || \Large 9 == 9 || {\bf 9} == 9 || \emph{9} == 9
        \(9\) == 9 || $9$ == 9 || "9" == 9 || \text{The answer is } 9 == 9 || \approx 9 == 9
        \scriptstyle 9 == 9 || 15^{o} == 15
        9 \quad \checkmark == 9 || \text{\textbf{9}} == 9 || \left(\tfrac12, 3\right) == (0.5, 3)
        9 (marbles) == 9""",
    "a sign or a unit that is missing is not zero": r"""
        \pm 4 != 4 || 4 != \pm 4 || -4, 4 == \pm 4 || \pm\sqrt{5} == \sqrt{5}, -\sqrt{5}
        2\pm\sqrt{3} == 2-\sqrt3, 2+\sqrt3 || 1\pm 2i != 1+2i || -\infty != \infty || 5i != 5 || 1+2i != 1-2i
        2i+1 == 1+2i || \frac{1}{i} == -i""",
    "intervals by their ends, open or closed": r"""
        (2,6) != [2,6] || [2,6) != (2,6] || ]2,6[ == (2,6) || (-\infty,-1] != (-\infty,-1)
        x\le -1 == (-\infty,-1] || x\le -1 != (-\infty,-1) || -3<x\leq 4 == (-3,4] || x \in (1, 7) == (1,7)
        (1,7) == 1<x<7 || 3 > x == x < 3 || x<2 != (2,\infty) || \mathbb R == (-\infty,\infty)
        \text{all real numbers} == \mathbb{R} || > 4 != 4 || (-2, 3) \cup (3, 5) == (-2,5)\setminus\{3\}
        (-2, 3) \cup (3, 5) != (-2,5) || x \ne 4 != 4 || x < -2 \text{ or } x > 5 == (-\infty,-2)\cup(5,\infty)
        x < -2 \text{ or } x > 5 != (-\infty,-2)\cup[5,\infty) || a \le 3 != b\leq 3 || (1,3) != 1,3""",
    "lists and sets in any order, points in theirs": r"""
        \{4,2\} == \{2,4\} || (4,2) != (2,4) || 2;4 == 4,2 || 2\text{ and }4 == 2,4 || \{4,2,6\} != \{2,4\}
        2, 2, 3 != 2, 3 || 7 != 7, 8 || 7, 8 != 7 || (0,1),(2,3) == (2,3),(0,1) || (1,0),(2,3) != (2,3),(0,1)
        \{1,3\} != (1,3) || \langle 4,-1\rangle == (4,-1) || (4,-1,0) != (4,-1) || 0.5 \text{ or } 1/2 == \frac12
        0.5 \text{ or } 0.6 != 0.5 || \{ \} == \varnothing || \{0\} != \emptyset || 1, 2, 3, \ldots == 1,2,3,\dots
        x=2, x=4 == 4,2 || x=2,\ y=4 == (2,4) || x=4,\ y=2 != x=2, y=4 || y=4,\ x=2 == x=2, y=4
        n = 2, 3, 4 == 2,3,4 || (x,y,z)=(1,2,3) == (1,2,3) || [1, 2, 3] == [1,2,3]""",
    "matrices by their entries": r"""
        \begin{pmatrix} 5 \\ 6 \end{pmatrix} == \begin{bmatrix} 5 \\ 6 \end{bmatrix}
        \begin{pmatrix} 5 \\ 6 \end{pmatrix} != \begin{pmatrix} 6 \\ 5 \end{pmatrix}
        \begin{pmatrix} 5 & 6 \end{pmatrix} != \begin{pmatrix} 5 \\ 6 \end{pmatrix}
        \begin{pmatrix} 0.5 & 1 \\ 0 & 2 \end{pmatrix} == \left(\begin{array}{cc} \frac12 & 1 \\ 0 & 2\end{array}\right)
        \begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix} != \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}""",
    "a unit that only one side states is implied": r"""
        7\text{ kg} == 7 || 7 marbles == 7 || \text{7 red marbles} == 7 || 7\,\text{m/s} == 7
        7\ \mathrm{m\,s^{-1}} == 7 || 7\text{ ft}^2 == 7 || 7~\text{cm} == 7 || 4\sqrt{3}\text{ cm} == 4\sqrt{3}
        25\pi\text{ square inches} == 25\pi || 25\pi != 25 || 7 == 7\text{ inches} || 60° == 60
        60\text{ degrees} == 60^{\circ} || £36 == 36 || 36 USD == 36 || \$36.00 == 36 || 25\text{ years old} == 25
        \frac{7}{2}\text{ hours} == 3.5""",
    "units of both are converted": r"""
        7\text{ in} == 7\text{ inches} || 7\text{ km} != 7\text{ m} || 7000\text{ m} == 7\text{ km}
        36^\circ != \$36 || 7\text{ hours} != 7\text{ minutes} || 50\text{ cents} == \$0.50
        50\text{ cents} != \$50 || 1\text{ kg} == 1000\text{ g} || 20\text{ m}^2 == 20\text{ square meters}
        20\text{ m}^2 != 20\text{ m} || 20\ \text{m}^2 == 200000\text{ cm}^2
        20 \text{ km/h} == 20 \text{ kilometers per hour} || 20 \text{ km/h} != 20 \text{ mph}
        9\text{ eggs} != 9\text{ hens} || 6\text{ ft }2\text{ in} != 6 || 6\text{ feet }2\text{ inches} != 2
        6\text{ ft }2\text{ in} == 74\text{ inches} || 1\text{ hour and }20\text{ minutes} != 1
        1\text{ hour }20\text{ minutes} == 80\text{ minutes} || 3\text{ million} == 3000000 || 3\text{ million} != 3
        \$5\text{ million} == 5000000 || 4 dozen eggs == 48""",
    "numbers in words are numbers": r"""
        \text{twelve} == 12 || \text{forty-two} == 42 || \text{one hundred and five} == 105 || x=\text{three} == 3
        \text{two and a half} == 2.5 || \text{three quarters} == \frac34 || \text{negative one half} == -\frac12
        \text{five apples} == 5 || \text{two thousand and six} == 2006 || \text{one of them} != 1
        \text{no one} != 1 || \text{sixty} != 6 || \text{one, two and three} == 1,2,3""",
    "words that change a value are no nouns": r"""
        3\text{ halves} == \frac32 || 3\text{ halves} != 3 || 3\text{ tenths} == 0.3 || 3\text{ hundredths} != 3
        3\text{ squared} != 3 || 3\text{ factorial} != 3 || 3\text{ bn} == 3000000000 || 12\text{ lakh} == 1200000
        12\text{ score} == 240 || 5\text{ dozens} == 60 || 3\text{ quarters} == 3""",
    "sums of units": r"""
        5 and 2/3 miles == \frac{17}{3} || 1-1/4 hours == 1.25 || -1.6\times10^{-19}\text{ C} == -1.6\times 10^{-19}
        5'6" == 5\text{ feet }6\text{ inches} || 5'\,6'' == 66\text{ inches} || 2h 15m == 135\text{ minutes}
        30^\circ 30' == 30.5^\circ || \$18\text{ and }50\text{ cents} == \$18.50 || 60º == 60
        5\text{ feet }6\text{ inches tall} == 66\text{ inches} || US\$18 == 18 || ₩500 == 500 || ₩500 != \$500""",
    "percentages as shares and as numbers": r"""
        12\% == 0.12 || 12\% == 12 || 12 percent == 12\% || 0.12 == 12\% || 12\% != 1.2 || 12\% != 1200
        0.6\% != 0.6 || 66\frac{2}{3}\% == \frac{2}{3} || 500\% == 5 || 5^\circ != 5\%
        5^\circ\text{C} != 5^\circ\text{F} || 5^\circ\text{C} == 5""",
    "bases, moduli and times": r"""
        101_2 != 101_3 || 101_{\text{two}} == 101_2 || 101 == 101_{2} || FF_{16} != FE_{16} || 2 \pmod 5 == 2
        n \equiv 2 \pmod{5} == 2 || n \equiv 3 \pmod{5} != 2 || 2 \pmod 5 != 2 \pmod 7
        9:30\text{ AM} != 9:30\text{ PM} || 9:30\text{ a.m.} == 9:30\text{ AM} || 21:30 == 9:30 PM || 9:30 != 9:45
        9 o'clock == 9:00 || 12:00 noon == 12:00\text{ PM} || 8{:}20\text{ a.m.} == 8:20\text{ AM} || midnight != noon
        9 o'clock == 9 || 9 o'clock != 8
        9:30 AM != 9 || 3\text{ p.m.} != 3\text{ a.m.} || 2:5 != 5:2 || 2:5 == \frac25""",
    "equations state the value of what they name": r"""
        y=3x-1 == 3x-1 || y=3x-1 != 3x+1 || 3x-y-1=0 == y=3x-1 || 3x-y-1=0 != 0 || g(t)=t^2 == t^2 || 2x=10 != 10
        x^2+y^2=25 != 25 || m+n=17 == 17 || x+y=17 != 17 || 9 == x=9 || y=9 != x=9 || x = 4+5 = 9 == 9
        AB = 9 == 9 || \angle PQR = 60^\circ == 60 || P(A)=\frac13 == \frac13 || \text{Total} = 9\text{ nuts} == 9
        \tan\theta = 2 == 2 || x^3+C != x^3 || x^3+C == C+x^3""",
    "formulas by their values, in the same letters": r"""
        (x-1)(x+1) == x^2-1 || (a+b)^2 != a^2+b^2 || \cos(2x) == 1-2\sin^2 x || \sin x != \cos x
        \sqrt{x^2} == \lvert x\rvert || \sqrt{x^2} != x || t^2 != s^2 || x != X || 9 != 9x || f(x)+1 != f(x)
        \ln x != \log_{10} x || a/b != b/a || xy == yx || 2^{x+1} == 2\cdot 2^x || n! != n || \frac{d}{2} == 0.5d""",
    "words by their letters": r"""
        \textit{Anna} == \text{Anna} || \text{Tuesday} != Thursday || \text{silent} != \text{listen} || XI != IX
        XI == \text{XI} || \angle PQR != \angle PRQ || \triangle KLM == \triangle KLM
        \overline{AB} != \overline{CD} || PQ == \overline{PQ} || \text{May } 4 != \text{June } 4
        \text{May 4} == \text{May } 4 || \text{not even} != \text{even}
        \text{none of the above} != \text{all of the above} || \text{no solution} == \text{No solutions}
        \text{true} == True || \text{There is no solution} == \text{no solution} || \text{undefined} != 0
        \text{odd} != \text{even}""",
    "choices by their letter and their value": r"""
        \textbf{(C)} == C || \textbf{(C) } 45 == C || C == \textbf{(C) } 45 || 45 == \textbf{(C) } 45
        \textbf{(C) } 45 == 45 || \textbf{(D) } 45 != \textbf{(C) } 45 || \textbf{(C) } 40 != 45 || (C) 40 != (C) 45
        c == C || d != C || e != E || b) 45 == B || b) 45 != C
        D != \textbf{(C) } 45 || C) 45 == C || C. 45 == C || C: 45 == C || (c) == C || \text{Option C} == C
        D and B == B, D || B != B, D || B, D, A != B, D""",
}


def pairs(table):
    for item in table.replace("\n", "||").split("||"):
        sign = "==" if " == " in item else "!="
        if item.strip():
            answer, gold = item.strip().split(f" {sign} ")
            yield answer, gold, sign == "=="


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_compared_by_what_they_are(kind):
    graded = [(answer, gold, grade(f"\\boxed{{{answer}}}", gold).correct) for answer, gold, _ in pairs(KINDS[kind])]
    assert graded == list(pairs(KINDS[kind]))


def test_equality_is_symmetric_and_everything_equals_itself():
    for answer, gold, right in (pair for table in KINDS.values() for pair in pairs(table)):
        assert same_answer(gold, answer) == right, (gold, answer)
        assert same_answer(answer, answer)


NUMBERS = st.integers(-(10**9), 10**9)
FRACTIONS = st.builds(lambda top, bottom: rf"\frac{{{top}}}{{{bottom}}}", NUMBERS, st.integers(1, 10**6))
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-1e6, max_value=1e6).map(str)
VALUES = NUMBERS.map(str) | FRACTIONS | DECIMALS
FORMS = [
    r"\boxed{%s}",
    r"So \boxed{\textbf{%s}}.",
    "#### %s",
    "The answer is $%s$.",
    "<think>1</think>Answer: %s",
    "%s",
]


@settings(max_examples=100)
@given(VALUES, st.sampled_from(FORMS))
def test_a_number_is_right_for_itself_in_every_form(value, form):
    assert grade(form % value, value).correct


@given(st.lists(NUMBERS, min_size=2, max_size=5), st.randoms())
def test_a_set_is_right_in_any_order_and_wrong_without_one_of_its_members(members, random):
    shuffled = random.sample(members, len(members))
    assert same_answer(rf"\{{{', '.join(map(str, shuffled))}\}}", ", ".join(map(str, members)))
    assert not same_answer(", ".join(map(str, shuffled[1:])), ", ".join(map(str, members))) or len(set(members)) == 1


@given(NUMBERS, st.integers(1, 10**6), NUMBERS, st.integers(1, 10**6))
def test_fractions_are_equal_as_numbers(a, b, c, d):
    assert same_answer(f"{a}/{b}", rf"\frac{{{c}}}{{{d}}}") == (a * d == b * c)


@given(NUMBERS, st.sampled_from(["apples", r"\text{ green apples}", r"\text{ cm}^2", "€", "^\\circ", "%", " people"]))
def test_a_number_with_any_unit_states_the_number_and_no_other(number, unit):
    assert same_answer(f"{number} {unit}", str(number))
    assert not same_answer(f"{number} {unit}", str(number + 1)) or unit == "%"
