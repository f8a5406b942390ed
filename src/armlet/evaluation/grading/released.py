"""The rule by which the released code grades, here only to show how it differs from `grade`."""

from armlet.evaluation.grading.answers import Grade, last_box


def grade_released(answer_text: str, gold: str) -> Grade:
    """Correct where the last box contains any substring of the gold, as in the released code of arXiv 2510.01032.

    Never use it to measure: an empty box is a substring of everything, and so is an answer without a box.

    Args:
        answer_text: what the model wrote.
        gold: the right answer.
    """
    box = last_box(answer_text)
    return Grade((box or "").strip() in gold, box or None, box is not None)
