"""Inspect's model provider "armlet", which `provider` registers, and the comparison of two of Inspect's logs.

```
inspect eval task.py --model armlet/FOLDER_OR_HUB_ID -M policy=none --log-dir baseline
inspect eval task.py --model armlet/FOLDER_OR_HUB_ID -M policy=inward -M layers=0 --log-dir treated
armlet inspect-compare baseline/LOG.eval treated/LOG.eval --out report
```
"""

from armlet.integrations.inspect_ai.comparison import compare_logs

__all__ = ["compare_logs"]
