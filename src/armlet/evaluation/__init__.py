"""Measures whether ARM helps: tasks, conditions, engines, grading, runs, reports and the search for settings."""

from armlet.evaluation.conditions.conditions import Treatment as Treatment
from armlet.evaluation.grading.grade import Grade as Grade
from armlet.evaluation.grading.grade import grade as grade
from armlet.evaluation.report.merged import merge_runs as merge_runs
from armlet.evaluation.result import Findings as Findings
from armlet.evaluation.run import evaluate as evaluate
from armlet.evaluation.search.results import Search as Search
from armlet.evaluation.search.run import confirm as confirm
from armlet.evaluation.search.run import tune as tune
from armlet.evaluation.studies.result import StudyFindings as StudyFindings
from armlet.evaluation.studies.run import study as study
from armlet.evaluation.tasks.arithmetic import exercise as exercise
from armlet.statistics.comparison import Comparison as Comparison
from armlet.statistics.comparison import compare as compare
