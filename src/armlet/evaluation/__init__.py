"""Does it help: problems, conditions, grading, runs, statistics and reports."""

from armlet.evaluation.grading import Grade as Grade
from armlet.evaluation.grading import grade as grade
from armlet.evaluation.paired import Comparison as Comparison
from armlet.evaluation.paired import compare as compare
