"""What reaches ARM from vLLM's model runner V2, with stand-ins for the runner and its batches."""

from types import SimpleNamespace

import pytest
import torch

from armlet.integrations.vllm import runners

OFF = {"armlet": "off"}


class Recorder:
    """In place of `WorkerArm`."""

    def __init__(self):
        self.inputs, self.fired, self.off = [], 0, False

    def set_inputs(self, positions, counts, extra_args):
        self.inputs.append((positions.tolist(), counts, extra_args))

    def turn_off(self):
        self.off = True

    def check_fired(self):
        self.fired += 1


@pytest.fixture
def runner():
    model = SimpleNamespace(armlet=Recorder())
    return SimpleNamespace(get_model=lambda: model, arm=model.armlet)


def request(name, extra_args=None, pooling=None):
    sampling = None if pooling else SimpleNamespace(extra_args=extra_args)
    return SimpleNamespace(req_id=name, sampling_params=sampling, pooling_params=pooling)


def scheduled(*new, finished=()):
    return SimpleNamespace(scheduled_new_reqs=new, finished_req_ids=set(finished))


def batch_of(runner, positions, **counts):
    """A batch of a number of tokens per request; more positions are padding."""
    tokens = torch.tensor([*counts.values()]).numpy()
    batch = SimpleNamespace(req_ids=[*counts], num_scheduled_tokens=tokens, positions=torch.tensor(positions))
    assert runners.fill_batch(lambda: batch, runner) is batch
    return runner.arm.inputs[-1]


def test_a_batch_has_the_settings_of_its_requests_in_its_own_order(runner):
    pooling = SimpleNamespace(extra_kwargs={"armlet": 0.5})
    new = request("a", {"armlet": 1}), request("b", OFF), request("c", pooling=pooling)
    runners.keep_requests(lambda: None, runner, scheduled(*new))
    inputs = batch_of(runner, [7, 0, 1, 2, 4, 0], c=1, a=3, b=1)
    assert inputs == ([7, 0, 1, 2, 4, 0], [1, 3, 1], [{"armlet": 0.5}, {"armlet": 1}, OFF])


def test_a_name_of_a_finished_request_may_come_again_with_another_setting(runner):
    runners.keep_requests(lambda: None, runner, scheduled(request("a", OFF), request("b")))
    runners.keep_requests(lambda: None, runner, scheduled(request("a", {"armlet": 1}), finished=["a", "b"]))
    assert batch_of(runner, [0], a=1)[2] == [{"armlet": 1}]
    with pytest.raises(KeyError):
        batch_of(runner, [0], b=1)


def test_a_preempted_request_keeps_its_setting(runner):
    runners.keep_requests(lambda: None, runner, scheduled(request("a", OFF)))
    runners.keep_requests(lambda: None, runner, scheduled())
    runners.keep_requests(lambda: None, runner, scheduled(request("a", OFF)))
    assert batch_of(runner, [0], a=1)[2] == [OFF]


def test_requests_with_which_vllm_warms_up_have_no_arm(runner):
    worker = SimpleNamespace(model_runner=runner)
    runners.warm_up(lambda: runners.keep_requests(lambda: None, runner, scheduled(request("w"))), worker)
    runners.keep_requests(lambda: None, runner, scheduled(request("a")))
    assert batch_of(runner, [0, 0], w=1, a=1)[2] == [OFF, None]


def test_a_capture_runs_without_arm_and_a_step_is_checked(runner):
    assert runners.run_dummy(lambda: runner.arm.off, runner)
    assert runners.run_step(lambda: runner.arm.fired, runner) == 0
    assert runner.arm.fired == 1


def test_a_model_without_arm_is_left_alone():
    bare = SimpleNamespace(get_model=SimpleNamespace)
    calls = []
    for around in (runners.keep_requests, runners.fill_batch, runners.run_step, runners.run_dummy):
        around(lambda: calls.append(1), bare, scheduled(request("a")))
    assert len(calls) == 4
    assert set(vars(bare)) == {"get_model"}
