"""Runs the tasks of lm-eval with ARM attached, and compares two of its runs in a paired report.

```python
from armlet.integrations import lm_eval as integration
integration.register()
lm_eval.simple_evaluate(model="armlet", model_args="pretrained=FOLDER,policy=outward:band=0.2;ceiling=0.99", tasks=...)
```
"""

from armlet.integrations.lm_eval.comparison import compare_runs
from armlet.integrations.lm_eval.model import Treated, from_model, register
from armlet.integrations.treatment import IdleError

__all__ = ["register", "Treated", "from_model", "IdleError", "compare_runs"]
