"""Fair comparison: which runs may be compared, and how."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.compiler.fairness.card_reading import read_cards as read_cards
    from prunec.compiler.fairness.comparison_levels import compare_pair as compare_pair
    from prunec.compiler.fairness.report_cards import report_card as report_card
    from prunec.compiler.fairness.run_card import RunCard as RunCard
    from prunec.compiler.fairness.runs_comparison import Comparison as Comparison
    from prunec.compiler.fairness.runs_comparison import comparison_level as comparison_level

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "Comparison": "prunec.compiler.fairness.runs_comparison",
        "RunCard": "prunec.compiler.fairness.run_card",
        "compare_pair": "prunec.compiler.fairness.comparison_levels",
        "comparison_level": "prunec.compiler.fairness.runs_comparison",
        "read_cards": "prunec.compiler.fairness.card_reading",
        "report_card": "prunec.compiler.fairness.report_cards",
    },
)
