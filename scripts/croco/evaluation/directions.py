"""Which way a structured task's metric is better: part of the cache key of evaluations, so alone in its module."""

HIGHER, LOWER = "higher", "lower"
# Where a task declares none, or a row comes from another harness.
LOWER_IS_BETTER = (
    *("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bits_per_character", "brier_score"),
    *("loss", "nll", "ter", "wer", "cer", "mer", "error_rate", "ece", "mae", "mse", "rmse"),
)


def direction(metric: str, declared: bool | None = None) -> str:
    """higher or lower; ``declared`` is whether its task says that higher is better, None where it says nothing."""
    lower = metric in LOWER_IS_BETTER if declared is None else not declared
    return LOWER if lower else HIGHER
