r"""The final answer of a text: after the thought, the last box or boxes, the last `#### x`, or what the words state."""

import time

import pytest

from armlet.evaluation.grading.final_answer import NO_ANSWER, final_answer
from armlet.evaluation.grading.grade import Grade, grade
from armlet.evaluation.grading.sentences import NEGATIVE

STATED = {
    "the last box": [
        (r"\boxed{3} or rather \boxed{4}", "4"),
        (r"\boxed{3} and \boxed{}", "3"),
        (r"\boxed{3}, no: \boxed{4", "3"),  # cut off
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right."),
        (r"#### 3 \boxed{4}", "4"),
        (r"\framebox{4}", "4"),
        (r"$\bbox[border:2px solid]{4}$", "4"),
        (r"\boxed{\begin{aligned}A &= 3+1 \\ &= 4\end{aligned}}", "= 4"),
        (r"\boxed{\begin{aligned}x &= 3 \\ y &= 4\end{aligned}}", "x = 3, y = 4"),
        (r"It is \boxed 4.", "4"),
        ("Write it as \\boxed{}.\nThe answer is 9.", "9"),
    ],
    "several boxes of one answer": [
        (r"\boxed{3} and \boxed{8}", "3, 8"),
        (r"$\boxed{3}$, $\boxed{5}$, and $\boxed{8}$", "3, 5, 8"),
        (r"x = \boxed{3}, y = \boxed{8}", "x = 3, y = 8"),
        (r"First part: \boxed{3}. Then in all \boxed{8}.", "8"),
        (r"\boxed{8}. Indeed \boxed{8}", "8"),
    ],
    "the last line of GSM8K's form": [
        ("#### 1,234\n", "1,234"),
        ("#### 5\n#### 6", "6"),
        (r"#### \text{east}", r"\text{east}"),
        ("#### 12 apples", "12 apples"),
        ("#### **12**", "12"),
        ("#### 1. First, we add.\nThe answer is 9.", "9"),  # a heading
        ("#### Step 2: add\nThe answer is 9.", "9"),
        ("##### 5\nThe answer is 9.", "9"),
        ("See #### 5 above.\nThe answer is 9.", "9"),
    ],
    "what follows the thought": [
        (r"<think>Is it \boxed{3}?</think>The answer is \boxed{8}", "8"),
        ("I think \\boxed{3}? no.\n</think>\n\nThe answer is 8.", "8"),
        ("<thinking>3</thinking>\n#### 8", "8"),
        ("◁think▷3◁/think▷ 8", "8"),
        ("<reasoning>3?</reasoning>\n<answer>\n8\n</answer>", "8"),
    ],
    "few words that are a whole text, or that a colon announces": [
        ("cold", "cold"),
        ("**Paris**", "Paris"),
        ("William Shakespeare", "William Shakespeare"),
        ("São Paulo", "São Paulo"),
        ("Newton's law", "Newton's law"),
        ("cold or hot", "cold or hot"),
        ("The opposite of hot is cold.", "cold"),
        ("It's cold.", "cold"),
        ("The capital is New York.", "New York"),
        ("It is B.", "B"),
        ("no solution", "no solution"),
        ("Yes, the sky is blue.", "Yes"),
        ("No it isn't.", "No"),
        ("Yes, it is Paris.", "Paris"),
        ("The planet which is closest to the Sun is Mercury.", "Mercury"),
        ("Only three.", "3"),
        ("Yes, there are three.", "3"),
        ("The capital of France is:\n\n**Paris**", "Paris"),
        ("There are three apples.", "3 apples"),
    ],
    "a displayed formula": [
        ("The answer is\n\n\\[\nx = 19\n\\]", "x = 19"),
        ("The final answer is:\n$$\n\\frac{3}{8}\n$$", r"\frac{3}{8}"),
        ("So we find\n\\begin{align*}\nx &= 3+5 \\\\\n&= 8\n\\end{align*}", "= 8"),
        ("So we get\n$$x = 21.$$", "x = 21"),
        ("So\n\\[\nA = 9\\pi\n\\]\nsquare units.", r"A = 9\pi square units"),
    ],
    "what a sentence announces": [
        ("The answer is 42. Or is it 43?", "42"),
        ("The answer is (1, 2).", "(1, 2)"),
        ("The answer is -5 because 3 < 5.", "-5"),
        ("The answer is 10.5%.", "10.5%"),
        ("The answer is Evelyn.", "Evelyn"),
        ("The answer is 3.\nNo, the answer is 4.", "4"),
        ("The answer to the last question is 14.", "14"),
        ("So the answer must be 14, as required.", "14"),
        ("The correct option is D.", "D"),
        ("The solutions are 3 and 8.", "3 and 8"),
        ("## Answer\n\n8", "8"),
        ("The answer is minus 8.", "-8"),
        ("The answer is about $3.25$ meters.", "3.25 meters"),
        ("The answer is $3$, $4$ and $8$.", "3, 4, 8"),
        ("The answer is 8, not 10.", "8"),
        ("The answer is 8 (that is, 3 + 5).", "8"),
        ("The answer is $1,250 per month.", "$1,250 per month"),
        ("The answer is less than 8.", "< 8"),
        ("The answer is 8 rather than 10.", "8"),
        ("The answer is [68].", "[68]"),
        ("The answer is 1,296 bricks, all told.", "1,296 bricks"),
        ("The answer is not 10 but 8.", "8"),
        ("The answer is not 10; it is 8.", "8"),
        ("The answer isn't 10. It's 8.", "8"),
        ("The answer is neither A nor B, but C.", "C"),
        ("Answer: 11 as well as 13; both values work.", "11 and 13"),
        ("The answer is 8, and it is the 4th even number.", "8"),
        ("The answer is 8. Actually, there are 3 ways to see it.", "8"),
        ("The answer is Rs. 800.", "800"),
        ("【答案】8", "8"),
        ('{"answer": 8}', "8"),
    ],
    "a correction after it": [
        ("I first thought the answer is 5. But it is 6.", "6"),
        ("The answer is 5. No wait, it's 6.", "6"),
        ("The answer is 5. Sorry, it should be $6$.", "6"),
    ],
    "a list under it": [
        ("The solutions are:\n1. x = 4\n2. x = 9", "x = 4, x = 9"),
        ("The prime factors are:\n- 2\n- 3\n- 7", "2, 3, 7"),
        ("The answer is:\n* 7", "7"),
        ("Here are the steps:\n1. 2 + 2 = 4\n2. 4 * 3 = 12", "4 * 3 = 12"),
    ],
    "numbers in words": [
        ("The answer is forty-two.", "42"),
        ("The answer is minus three.", "-3"),
        ("The answer is two and a half.", "2 1/2"),
        ("There are twelve.", "12"),
        ("The answer is one of the roots.", "one of the roots"),
    ],
    "a choice": [
        ("I would say D.", "D"),
        ("Option B lists them in the reverse order.\n\nD", "D"),
        ("We find $\\boxed{x < 0}$, so it falls.\n\n**Answer: B**", "B"),
        ("We find $\\boxed{3}$.\n\nAnswer: i", "3"),  # no choice
        ("Answer: I think it is B", "B"),
        ("The correct relation is (B): $x = 3$.", "(B) x = 3"),
        ("Antwort: D", "D"),
        ("A is incorrect. B is incorrect. So C.", "C"),
        ("B. Paris", "B"),
        ("A. 12", "A. 12"),
        ("C\n\nExplanation: A and B can be excluded.", "C"),
    ],
    "marks of Markdown and HTML around it": [
        ("The answer is:\n\n**42**", "42"),
        ("The answer is `42`.", "42"),
        ("The answer is:\n```\n42\n```", "42"),
        ("The answer is <strong>42</strong>.", "42"),
        ("> The answer is 42.", "42"),
        ("Answer: _42_", "42"),
        ("The answer is “42”.", "42"),
        ("The answer is 42<|im_end|>", "42"),
        ("The answer is 8 cm<sup>2</sup>", "8 cm^{2}"),
        ("The answer is ***42***.", "42"),
        ("**_42_**", "42"),
        ("The answer is ==42==", "42"),
        ("The answer is ~~41~~ 42.", "42"),
    ],
    "what the last line states": [
        ("So it costs 3 + 4 = 7 dollars.", "3 + 4 = 7 dollars"),
        ("7\n\n", "7"),
        ("After 3 days he has 8 apples.", "8 apples"),
        ("He has 8 apples left after 3 days.", "8 apples left"),
        ("So f(2) = 8.", "f(2) = 8"),
        ("So there are 4! = 24 ways.", "4! = 24 ways"),
        ("The train arrives at 3:45 PM.", "3:45 PM"),
        ("Buses leave at 7:30.", "7:30"),
        ("It took 2 hours and 15 minutes.", "2 hours and 15 minutes"),
        ("He is 5'6\" tall.", "5 feet 6 inches tall"),
        ("He pays $2 for each of 9 items, so $18.", "$18"),
        ("Step 2: 4*3=12", "4*3=12"),
        ("She ran it in 4 min 30 s.", "4 min 30 s"),
        ("Each box holds 18, so in total there are 72 clips, altogether.", "72 clips"),
        ("The list ends with 13, 17 and 19, so there are exactly 8 primes below 20.", "8 primes"),
        ("So, Maria has 1,024 stamps left after giving away 76 of them.", "1,024 stamps left"),
        ("The winner must be Emma.", "Emma"),
        ("This means that the car burns 9 gallons on the 270-mile trip.", "9 gallons"),
        ("In total, the 3 friends gathered 3 * 45 = 135 shells.", "3 * 45 = 135 shells"),
        ("Ben's grandfather is 78 years old, three times as old as Ben, who is 26.", "78 years old"),
        ("That leaves Kyle with twelve cards, i.e. 12.", "12"),
        ("So the firm hired 8 workers in 2020.", "8 workers"),
        ("Therefore, the length is \\(8\\) cm.", "8 cm"),
        ("So we have 9 pens (4 red and 5 blue).", "9 pens"),
        ("答案：8", "8"),
        ("8 [2]", "8"),
        ("(B)", "(B)"),
        ("The value is 8.\n\nLet me know if you have questions!", "8"),
    ],
}

UNREADABLE = [
    ("<think>I think it is \\boxed{3}, but wait", "the thought does not end"),
    ("<think>so\n#### 3", "the thought does not end"),
    ("The answer is 8.</think>\n", "nothing follows the thought"),
    ("Let x be 42. So \\boxed{", "the box is not closed"),
    ("The answer is not 8.", NEGATIVE),
    ("The answer isn't 8.", NEGATIVE),
    ("It cannot be 8.", NEGATIVE),
    ("The answer is between 8 and 10.", "it is a range"),
    ("The answer is 8 to 10.", "it is a range"),
    ("Some 3 red ones sit near 8 blue ones", "several numbers in the last line: 3, 8"),
    ("x = 5\nThat is all.", NO_ANSWER),  # not stated in the last line
    ("Is the result 8?", "it is a question"),
    ("It can't be two.", "it says what the answer is not"),
    ("It is not true that there are two.", "it says what the answer is not"),
    ("If today is Tuesday.", "it is a condition"),
    ("There is not enough information; with 2 rows it would be 8.", "it declines to answer"),
    ("If the box is a cube, the volume would be 8.", "it is a condition"),
    ("It could be 8, but it might also be 9.", "it says what the answer may be more than once"),
    ("There is one thing left to do.", NO_ANSWER),
]
NOTHING = ["", "  \n ", r"\boxed{}", r"\boxed{\ }", r"\boxed{\text{ }}", r"\boxed{{}}", r"\boxed{\quad}", r"\boxed{?}"]
NOTHING += ["hot\ncold", "Add them.\nThis is correct.", "The sky is blue because of scattering."]
NOTHING += [
    *("####", "#### \n", "I cannot tell.", "????", "The answer is", "the answer is ...", "The answer is ____."),
    # in a few words: denied, doubted, supposed, cut off, of two minds, or said of something else
    *(
        "It cannot be cold.",
        "It might be cold.",
        "It used to be cold.",
        "I doubt that it is cold.",
        "It is hot or cold.",
    ),
    *("I wonder if it is cold.", "The incorrect option is cold.", "Suppose it is cold.", "It's hard to say."),
    *("This is a", "Where is the cold", "Here is what it is not:\ncold", "Wrong options include:\ncold"),
    *("Yes, I can help you with that.", "Yes. Wait, no.", "No, I am an AI.", "No, it's Paris.", "Yes, no."),
    *("Paris is the capital of France.", "He was inspired by Picasso.", "Divide both sides by two.", "a dozen"),
    *("Let me think", "What is the answer", "Nobody is sure.", "It is called Paris.", "Altogether, three apples."),
]

WRONG = [
    ("The answer is 8 feet 3 inches.", "8"),
    ("The answer is 8.5 million.", "8.5"),
    ("The answer is $6!$.", "6"),
    ("The answer is 2×10³.", "2"),
    ("The answer is 4½.", "4"),
    ("The answer is negative 8.", "8"),
    ("The answer is at least 8.", "8"),
    ("The answer is either 8 or 10.", "8"),
    ("The answer is 3, 4, and 8.", "8"),
    ("Therefore, x = 3 or x = 8.", "8"),
    ("There are 3 red and 8 blue apples.", "8"),
    (r"\boxed{3} or \boxed{8}", "8"),
    ("The answer is 4 out of 5.", "4"),
    ("The answer is 8 (or 6).", "8"),
    ("The answer is 8 halves.", "8"),
]


@pytest.mark.parametrize("kind", STATED)
def test_what_was_stated_last_is_the_final_answer(kind):
    assert [(text, final_answer(text).text) for text, _ in STATED[kind]] == STATED[kind]
    assert not any(final_answer(text).unreadable for text, _ in STATED[kind])


def test_boxes_and_lines_of_gsm8k_are_the_requested_form_and_words_are_not():
    texts = [(r"\boxed{3} and \boxed{}", True), ("#### 12 apples", True), ("The answer is 9.", False), ("9", False)]
    assert [final_answer(text).in_form for text, _ in texts] == [in_form for _, in_form in texts]


@pytest.mark.parametrize(("text", "reason"), UNREADABLE)
def test_what_is_ambiguous_is_unreadable_and_says_why(text, reason):
    assert grade(text, "8") == Grade(False, None, False, reason)


@pytest.mark.parametrize("text", NOTHING)
def test_what_states_nothing_is_wrong_for_every_gold(text):
    for gold in ("5", "\\frac{3}{4}", "\\text{Evelyn}", "", "0"):
        assert grade(text, gold) == Grade(False, None, False, NO_ANSWER)


@pytest.mark.parametrize(("text", "gold"), WRONG)
def test_a_part_of_what_was_stated_is_wrong(text, gold):
    assert grade(text, gold).extracted is not None
    assert not grade(text, gold).correct


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "<sup>",
        "<answer>",
        "$$",
        "\\[",
        "\n",
        "- ",
        "answer is ",
        "(",
        "\\fbox[",
        "1,",
        "\\%",
        "a=",
        "are:\n- 1\n",
        " so ",
        "one hundred ",
        "twenty-",
        "not ",
        " it is ",
        "5 feet ",
        "\n1. x=1",
        "== ",
        "if would ",
    ],
)
def test_a_long_text_is_read_in_bounded_time(piece):
    start = time.process_time()
    for text in (piece * 20_000, f"\\boxed{{{piece * 300}}}", f"The answer is {piece * 300}"):
        grade(text, "5")
    assert time.process_time() - start < 10
