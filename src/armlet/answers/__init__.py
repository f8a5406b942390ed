"""A model's answers without ARM and with it."""

from armlet.answers.result import Answers as Answers
from armlet.answers.run import generate as generate
