"""Whether higher or lower is better for a task's metric. A module of its own, as part of the evaluations' cache key."""

HIGHER, LOWER = "higher", "lower"
# For tasks that declare no direction, and for rows of other harnesses.
LOWER_IS_BETTER = (
    *("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bits_per_character", "brier_score"),
    *("loss", "nll", "ter", "wer", "cer", "mer", "error_rate", "ece", "mae", "mse", "rmse"),
)


def direction(metric: str, declared: bool | None = None) -> str:
    """higher or lower; ``declared`` is whether its task says that higher is better, or None."""
    lower = metric in LOWER_IS_BETTER if declared is None else not declared
    return LOWER if lower else HIGHER
