"""One engine in a process of its own: `python generate.py REQUEST`, a JSON object; tokens as JSON on the last line.

With TRITON_INTERPRET=1, vLLM finds Triton's interpreter where it looks for Triton on a CPU: model runner V2 then runs.
"""

import json
import os
import sys
from types import SimpleNamespace

from engines import engine, greedy

if os.environ.get("TRITON_INTERPRET"):  # also in the engine's other processes, which import this file again
    from triton.backends import backends

    backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True))

if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    with engine(request["folder"], request.get("armlet"), **request.get("options", {})) as llm:
        if request.get("dummy_batch"):
            llm.collective_rpc("execute_dummy_batch")
        asked = request["prompts"], request["tokens"], request.get("extra_args"), request.get("logprobs")
        for _ in range(request.get("rounds", 1)):
            outputs = greedy(llm, *asked)
        result = {"tokens": [list(output.outputs[0].token_ids) for output in outputs]}
        result |= {"v2": llm.llm_engine.vllm_config.use_v2_model_runner}
        result |= {"cached": [output.num_cached_tokens for output in outputs]}
        metrics = llm.get_metrics()
        result |= {"preemptions": sum(m.value for m in metrics if m.name == "vllm:num_preemptions")}
        if request.get("logprobs"):
            chosen = [
                [step[t].logprob for t, step in zip(o.token_ids, o.logprobs, strict=True)]
                for o in (output.outputs[0] for output in outputs)
            ]
            result["logprobs"] = chosen
        if "report" in request:
            result["report"] = llm.collective_rpc("armlet_report")
    print(json.dumps(result))
