"""Which method is worth its cost for a model and one's own questions, and what that looks like.

`read_questions` reads a set of questions, `evaluate` asks a model all of them and grades its
answers, `summaries` and `recommend` say what each method is worth, `calibration_of` makes a
calibration of it, and `write_report` shows it. Parquet, progress bars and reports take the extra
`evaluation`.
"""

from uq_llm_integrations.evaluation.correctness import (
    Contains,
    ExactMatch,
    Grade,
    Grader,
    NumericMatch,
    RegexMatch,
    RougeMatch,
)
from uq_llm_integrations.evaluation.items import Evaluation, Item, Setup, is_evaluation
from uq_llm_integrations.evaluation.judging import LLMJudge
from uq_llm_integrations.evaluation.question_files import read_questions
from uq_llm_integrations.evaluation.questions import Question
from uq_llm_integrations.evaluation.recommending import Recommendation, recommend
from uq_llm_integrations.evaluation.report_page import write_report
from uq_llm_integrations.evaluation.running import aevaluate, evaluate
from uq_llm_integrations.evaluation.summaries import (
    Cost,
    MethodSummary,
    calibration_of,
    summaries,
)
from uq_llm_integrations.evaluation.tables import to_parquet

__all__ = [
    "Contains",
    "Cost",
    "Evaluation",
    "ExactMatch",
    "Grade",
    "Grader",
    "Item",
    "LLMJudge",
    "MethodSummary",
    "NumericMatch",
    "Question",
    "Recommendation",
    "RegexMatch",
    "RougeMatch",
    "Setup",
    "aevaluate",
    "calibration_of",
    "evaluate",
    "is_evaluation",
    "read_questions",
    "recommend",
    "summaries",
    "to_parquet",
    "write_report",
]
