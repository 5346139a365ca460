"""Checks whether the reward models are fit for their languages, before any training.

In:  the first blocks of prompts/{language}/{start}.jsonl, a policy, the reward models, further comparisons if given.
Out: audit/prompts/{language}.jsonl, audit/{policy}/{language}.jsonl (a few answers that a later generation reuses),
     audit/{reward}.json, .jsonl, .md, .html. The page's templates are no inputs: a new layout would make audits again.
"""


include: "helpers/audit.smk"


rule select_audited:
    """The first prompts of a language."""
    input:
        prompts=paths_audited_blocks,
        checked=lambda wc: paths_contamination([wc.language], audited_starts()),
    output:
        prompts=place("audit/prompts/{language}.jsonl"),
        manifest=place("audit/prompts/{language}.manifest.json"),
    log:
        place("logs/audit/prompts.{language}.log"),
    benchmark:
        place("benchmarks/audit/prompts.{language}.tsv")
    localrule: True
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=30,
    params:
        scripts=path_scripts,
        number=AUDIT["prompts"],
        code=digest_code("audit"),
        lock=LOCK,
    message:
        "audit: {params.number} prompts, {wildcards.language}"
    shell:
        r"""
        python {params.scripts:q}/audit.py select \
            --prompts {input.prompts:q} \
            --count {params.number:q} \
            --output {output.prompts:q} \
            2>&1 | tee {log:q}
        """


use rule generate as generate_audited with:
    input:
        prompts=rules.select_audited.output.prompts,
        template=place("{policy}/template.json"),
        models=wait_for_checks("audit/{policy}/{language}.jsonl"),
        adapter=[],
        model=lambda wc: paths_model(find_policy(wc)),
    output:
        generations=place("audit/{policy}/{language}.jsonl"),
        manifest=place("audit/{policy}/{language}.manifest.json"),
    log:
        place("logs/audit/{policy}.{language}.log"),
    benchmark:
        place("benchmarks/audit/{policy}.{language}.tsv")
    wildcard_constraints:
        policy=match_any([AUDIT_POLICY]),
    resources:
        **model_job(lambda wc: [find_policy(wc)], "generate_audited"),
    params:
        samples=AUDIT["samples"],
    message:
        "audit: answers of {wildcards.policy}, {wildcards.language} ({resources.gpu} GPU)"


rule audit_reward:
    """Scores answers and their damaged copies with one reward model, in all languages with one model load."""
    input:
        prompts=expand(rules.select_audited.output.prompts, language=GRID.trained),
        answers=expand(rules.generate_audited.output.generations, policy=AUDIT_POLICY, language=GRID.trained),
        comparisons=paths_comparisons(),
        template=path_template("reward", "{reward}"),
        model=lambda wc: paths_model(GRID.reward_models[wc.reward]),
    output:
        report=place("audit/{reward}.json"),
        comparisons=place("audit/{reward}.jsonl"),
        table=place("audit/{reward}.md"),
        page=place("audit/{reward}.html"),
        manifest=place("audit/{reward}.manifest.json"),
    log:
        place("logs/audit/{reward}.log"),
    benchmark:
        place("benchmarks/audit/{reward}.tsv")
    conda:
        environment_of(*GRID.reward_models.values())
    threads: model_threads(lambda wc: [GRID.reward_models[wc.reward]])
    resources:
        **model_job(lambda wc: [GRID.reward_models[wc.reward]], "audit_reward"),
    params:
        scripts=path_scripts,
        gpus=lambda wc, resources: options_gpus(resources, GRID.reward_models[wc.reward]),
        languages=GRID.trained,
        brought=lambda wc, input: ["--comparisons", *input.comparisons] if input.comparisons else [],
        model=lambda wc: options_model(GRID.reward_models[wc.reward], "max_length"),
        identity=lambda wc: identify_model(GRID.reward_models[wc.reward]),
        policy=AUDIT_POLICY,
        audited=AUDIT["answers"],
        seed=GRID.config["seed"],
        state=STATE,
        code=digest_code("audit"),
        lock=lambda wc: lock_engine(GRID.reward_models[wc.reward]),
    message:
        "audit: {wildcards.reward} in {params.languages} ({resources.gpu} GPU)"
    shell:
        r"""
        python {params.scripts:q}/with_gpus.py {params.gpus:q} -- \
            python {params.scripts:q}/audit.py score \
            --languages {params.languages:q} \
            --prompts {input.prompts:q} \
            --answers {input.answers:q} \
            --policy {params.policy:q} \
            --audited {params.audited:q} \
            {params.brought:q} \
            {params.model:q} \
            --seed {params.seed:q} \
            --state {params.state:q} \
            --output {output.report:q} \
            2>&1 | tee {log:q}
        """
