"""Which way a metric is better; a positive delta of the summary always means better.

Lengths (n_tokens, n_chars) have no better way: their delta is positive for longer answers.
"""

# Where a task declares none, or a row comes from another harness.
LOWER = (
    *("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bits_per_character", "brier_score"),
    *("truncated", "repetition", "self_similarity", "unparseable"),
    *("loss", "nll", "ter", "wer", "cer", "mer", "error_rate", "ece", "mae", "mse", "rmse"),
)


def better(metric, declared=None):
    """ "higher" or "lower"; ``declared`` is whether its task says that higher is better, None where it says nothing."""
    lower = metric in LOWER if declared is None else not declared
    return "lower" if lower else "higher"
