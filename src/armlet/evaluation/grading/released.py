"""The rule by which the released code grades, here only to show the difference to `grade`."""

from armlet.evaluation.grading.answers import Grade, last_box


def grade_released(answer_text: str, gold: str) -> Grade:
    """Correct where the last box holds any substring of the gold, as the released code of arXiv 2510.01032 has it.

    An empty box is a substring of everything, and so is an answer without a box: both score. Never use it to measure.

    Args:
        answer_text: what the model wrote.
        gold: the right answer.
    """
    found = last_box(answer_text)
    return Grade((found or "").strip() in gold, found or None, found is not None)
