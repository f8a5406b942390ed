"""An engine without a model: its answers follow from item, condition and sample alone."""

import hashlib

from armlet.evaluation.engines.engine import Output

GAINS = {"baseline": 0.6, "treated": 0.7}


class Fake:
    """Right in a share of the items; `stop_at` raises `error` in that call, as a crash would."""

    def __init__(self, *, stop_at=None, error=KeyboardInterrupt, name="fake"):
        self.calls, self.stop_at, self.error, self.name = 0, stop_at, error, name

    def describe(self):
        return {"model": self.name, "sha256": "0"}

    def shown_prompt(self, ask):
        return ""

    def length(self, ask):
        return len(ask.problem.question)

    def answer(self, asks, condition, sampling, *, batch, sample):
        self._call()
        return [self._output(ask, condition, sampling, sample) for ask in asks]

    def score_choices(self, asks, condition):
        self._call()
        return [
            [-1.0 - (at != int(ask.problem.gold)) * (1 if self._right(ask, condition, 0) else -0.5) for at in range(4)]
            for ask in asks
        ]

    def fired(self):
        return {"0": {"calls": 1, "tokens": 10, "moved": 5, "share_moved": 0.05, "passed": 0}} if self.calls else {}

    def _call(self):
        self.calls += 1
        if self.calls == self.stop_at:
            raise self.error

    def _right(self, ask, condition, sample):
        inert = condition.placebo in ("identity", "draw-only")
        name = "baseline" if inert else condition.name
        word = f"{ask.problem.id}/{name if sample else condition.role if not inert else 'baseline'}/{sample}"
        drawn = int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) / 2**32
        return drawn < GAINS.get("baseline" if inert else condition.role, 0.6)

    def _output(self, ask, condition, sampling, sample):
        right = self._right(ask, condition, sample)
        text = f"steps#{ask.problem.gold}" if right else "no idea" if int(ask.problem.gold) % 3 == 0 else "steps#0"
        logprob = -0.1 if right else -0.5
        return Output(text, len(text), ended=right, logprob=logprob if condition.role == "best-of" else None)
