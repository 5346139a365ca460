"""CroCo: cross-lingual contrastive preference tuning on self-generations (arXiv 2605.26293).

prompts -> generations -> scores -> pairs -> checkpoint -> answers, eval -> summary + report
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: f"{workflow.current_basedir}/config/config.yaml"


include: "rules/common.smk"
include: "rules/miniature.smk"
include: "rules/prompts.smk"
include: "rules/translate.smk"
include: "rules/tasks.smk"
include: "rules/contamination.smk"
include: "rules/generate.smk"
include: "rules/identify.smk"
include: "rules/score.smk"
include: "rules/audit.smk"
include: "rules/pairs.smk"
include: "rules/preview.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/judge.smk"
include: "rules/fidelity.smk"
include: "rules/runs.smk"
include: "rules/summary.smk"
include: "rules/findings.smk"
include: "rules/compare.smk"
include: "rules/report.smk"
include: "rules/release.smk"
include: "rules/stage.smk"
include: "rules/bundle.smk"


for PATH in CUSTOM_RULES:

    include: PATH


onstart:
    print(describe_prospect(GRID.results), file=sys.stderr)
    log_time_left(GRID, BASE, workflow.dag)


onsuccess:
    print(describe_result(GRID.results), file=sys.stderr)


onerror:
    for path in log:
        print(describe_failures(path), file=sys.stderr)
    print("To go on, start the same command again: what is finished is kept.", file=sys.stderr)


rule all:
    """Everything: tuned adapters, the summary table and the report page."""
    default_target: True
    input:
        rules.check_models.output.report,
        rules.summarise.output.summary,
        rules.check_findings.output.findings,
        rules.write_report.output.report,
        paths_beside_summary(),


rule report:
    """The report page alone."""
    input:
        rules.write_report.output.report,


rule preview:
    """What to look at before training: a page of prompts, responses and pairs, and ballots for native speakers."""
    input:
        paths_previews,


rule audit:
    """Whether each reward model prefers answers to their damaged copies, by language: before anything is trained."""
    input:
        expand(rules.audit_reward.output.report, reward=GRID.reward_models),


rule release:
    """What the config's key `release` names, bundled to be published: weights, preference data, cards."""
    input:
        paths_releases,


rule bundle:
    """The small evidence of the run in one archive, for others to check by scripts/verify.py."""
    input:
        rules.write_bundle.output.bundle,
