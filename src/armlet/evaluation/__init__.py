"""Measures whether ARM helps: tasks, conditions, engines, grading, runs, reports and the search for settings."""

from armlet.evaluation.grading.extraction import Grade as Grade
from armlet.evaluation.grading.extraction import grade as grade
from armlet.evaluation.tasks.arithmetic import exercise as exercise
from armlet.statistics.comparison import Comparison as Comparison
from armlet.statistics.comparison import compare as compare
