"""What runs leave behind, read back: one result, all results as a table, and what each number in them is called.

from qbsnn import results

runs = results.frame("outputs")          # a pandas DataFrame, one row per run
result = results.read_result("outputs/runs/RUN/result.json")
results.values(result)["test/acc"]
"""

from qbsnn.results.frames import frame
from qbsnn.results.quantities import QUANTITIES, Quantity, texts, values
from qbsnn.results.reading import read_result
from qbsnn.results.schema import Result

__all__ = ["QUANTITIES", "Quantity", "Result", "frame", "read_result", "texts", "values"]
