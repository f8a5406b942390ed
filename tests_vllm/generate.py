"""One engine in a process of its own: `python generate.py REQUEST`, a JSON object; tokens as JSON on the last line."""

import json
import sys

from engines import engine, greedy

if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    with engine(request["folder"], request.get("armlet"), **request.get("options", {})) as llm:
        outputs = greedy(llm, request["prompts"], request["tokens"], request.get("extra_args"), request.get("logprobs"))
        result = {"tokens": [list(output.outputs[0].token_ids) for output in outputs]}
        if request.get("logprobs"):
            chosen = [
                [step[t].logprob for t, step in zip(o.token_ids, o.logprobs, strict=True)]
                for o in (output.outputs[0] for output in outputs)
            ]
            result["logprobs"] = chosen
        if "report" in request:
            result["report"] = llm.collective_rpc("armlet_report")
    print(json.dumps(result))
