AUDIT = GRID.config["audit"]
# The policy whose answers are audited, by default the first policy that is tuned.
AUDIT_POLICY = GRID.audit_policy


def audited_starts():
    """The blocks of training prompts with the audited ones; other blocks need not be selected or translated."""
    return [start for start in GRID.blocks("train") if start < AUDIT["prompts"]]


def paths_audited_blocks(wildcards):
    return [place(f"prompts/{wildcards.language}/{start}.jsonl") for start in audited_starts()]


def paths_comparisons():
    """Further comparisons for the audit: the user's, or the miniature's for prompts that the oracle knows."""
    known, made = AUDIT.get("comparisons"), place("miniature/")
    if not known and EVALUATION["judge"] == "oracle":
        sources = [GRID.prompt_file("train", code) for code in GRID.trained]
        known = (
            f"{made}comparisons/{{language}}.jsonl" if all((path or "").startswith(made) for path in sources) else None
        )
    return [GRID.path(known, language=code) for code in GRID.trained] if known else []


def paths_audits():
    """The audits of reward models that the findings read, if the config asks for them (audit.in_findings)."""
    return [place(f"audit/{name}.json") for name in GRID.reward_models if AUDIT["in_findings"]]
