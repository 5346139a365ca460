"""Responses of the untuned policies, and of a round's checkpoint for the next round.

In:  prompts/{language}/{start}.jsonl and its check against what is evaluated, the policy.
Out: {policy}/{language}/generations/{start}.jsonl, joined in {policy}/{language}/generations.jsonl: one line per prompt
     with its N responses. {model}/template.json: whether the sampled tokens are those that will be trained on;
     templates/{role}/{name}.json: whether the template of a reward model, judge or translator can be used.
     templates/models.json: every check of a model in short. datasets.json: whether the datasets have what is declared.
"""


include: "helpers/generate.smk"


rule check_template:
    """Compares the policy's chat template in sampling and in training; fails if they differ, or weights are missing."""
    input:
        model=lambda wc: paths_model(GRID.policies[wc.model]),
    output:
        report=place("{model}/template.json"),
        manifest=place("{model}/template.manifest.json"),
    log:
        place("logs/generate/{model}.template.log"),
    benchmark:
        place("benchmarks/generate/{model}.template.tsv")
    conda:
        environment_of(*rows_checked())
    threads: 1
    resources:
        gpu=0,
        mem_mb=3000,
        runtime=30,
    params:
        scripts=path_scripts,
        model=lambda wc: GRID.path(GRID.policies[wc.model]["path"]),
        options=lambda wc: options_of(
            GRID.policies[wc.model], "revision", "trust_remote_code", "template_options", "engine"
        ),
        identity=lambda wc: identify_model(GRID.policies[wc.model]),
        code=digest_code("check_template"),
        lock=LOCK,
    message:
        "chat template: {wildcards.model}"
    shell:
        r"""
        python {params.scripts:q}/check_template.py \
            --model {params.model:q} \
            {params.options:q} \
            --weights \
            --output {output.report:q} \
            2>&1 | tee {log:q}
        """


use rule check_template as check_role_template with:
    input:
        model=lambda wc: paths_model(ROLES[wc.role][wc.title]),
    output:
        report=path_template("{role}", "{title}"),
        manifest=place("templates/{role}/{title}.manifest.json"),
    log:
        place("logs/templates/{role}.{title}.log"),
    benchmark:
        place("benchmarks/templates/{role}.{title}.tsv")
    params:
        model=lambda wc: GRID.path(ROLES[wc.role][wc.title]["path"]),
        # A translator's `template` is the text of its request, not a chat template.
        options=lambda wc: [
            "--role",
            wc.role,
            *options_of(
                ROLES[wc.role][wc.title],
                "revision",
                "trust_remote_code",
                "template_options",
                "engine",
                "format",
                "template",
            ),
        ],
        identity=lambda wc: identify_model(ROLES[wc.role][wc.title]),
        code=digest_code("check_template"),
        lock=LOCK,
    message:
        "chat template: {wildcards.role} {wildcards.title}"


rule check_models:
    """Joins the checks of all models of the config; nothing is sampled before it is there."""
    input:
        reports=paths_checks(),
    output:
        report=place(CHECKED),
        manifest=place("templates/models.manifest.json"),
    log:
        place("logs/templates/models.log"),
    benchmark:
        place("benchmarks/templates/models.tsv")
    localrule: True
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=10,
    params:
        scripts=path_scripts,
        code=digest_code("check_models"),
        lock=LOCK,
    message:
        "check of all models"
    shell:
        r"""
        python {params.scripts:q}/check_models.py \
            --reports {input.reports:q} \
            --output {output.report:q} \
            2>&1 | tee {log:q}
        """


rule check_datasets:
    """Compares the declared columns, subsets and splits with those of the datasets; no model runs before it is there."""
    output:
        report=place(DATASETS_CHECKED),
        manifest=place("datasets.manifest.json"),
    log:
        place("logs/datasets.log"),
    benchmark:
        place("benchmarks/datasets.tsv")
    localrule: True
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=60,
    params:
        scripts=path_scripts,
        datasets=[part for item in DATASETS for part in options_dataset(GRID, item)],
        content=lambda wc: [hash_folder(item.path) for item in DATASETS],
        code=digest_code("check_datasets"),
        lock=LOCK,
    message:
        "check of all datasets"
    shell:
        r"""
        python {params.scripts:q}/check_datasets.py \
            {params.datasets:q} \
            --output {output.report:q} \
            2>&1 | tee {log:q}
        """


rule generate:
    """Samples N responses to each prompt of a block; finished chunks under state/ survive a kill."""
    input:
        prompts=place("prompts/{language}/{start}.jsonl"),
        checked=lambda wc: paths_contamination([wc.language], [wc.start]),
        template=lambda wc: place(f"{find_policy(wc)['name']}/template.json"),
        models=wait_for_checks("{policy}/{language}/generations/{start}.jsonl"),
        adapter=lambda wc: paths_checkpoint(sampled_round(wc)),
        model=lambda wc: paths_model(find_policy(wc)),
    output:
        generations=place("{policy}/{language}/generations/{start}.jsonl"),
        manifest=place("{policy}/{language}/generations/{start}.manifest.json"),
    log:
        place("logs/generate/{policy}.{language}.{start}.log"),
    benchmark:
        place("benchmarks/generate/{policy}.{language}.{start}.tsv")
    conda:
        environment_of(*GRID.policies.values())
    threads: model_threads(lambda wc: [find_policy(wc)])
    resources:
        **model_job(lambda wc: [find_policy(wc)], "generate"),
    params:
        scripts=path_scripts,
        gpus=lambda wc, resources: options_gpus(resources, find_policy(wc)),
        model=lambda wc: options_model(find_policy(wc), "temperature", "top_p", "max_tokens"),
        adapter=lambda wc: options_adapter("--adapter", sampled_round(wc)),
        identity=lambda wc: identify_model(find_policy(wc)),
        samples=GRID.config["samples"],
        seed=GRID.config["seed"],
        state=STATE,
        code=digest_code("generate"),
        lock=lambda wc: lock_engine(find_policy(wc)),
    message:
        "generate: {wildcards.policy}, {wildcards.language}, prompts from {wildcards.start} ({resources.gpu} GPU)"
    shell:
        r"""
        python {params.scripts:q}/with_gpus.py {params.gpus:q} -- \
            python {params.scripts:q}/generate.py \
            --prompts {input.prompts:q} \
            {params.model:q} \
            {params.adapter:q} \
            --samples {params.samples:q} \
            --seed {params.seed:q} \
            --state {params.state:q} \
            --output {output.generations:q} \
            2>&1 | tee {log:q}
        """


rule gather_generations:
    """Joins all blocks of a language in one file."""
    input:
        prompts=place("prompts/{language}.jsonl"),
        parts=paths_blocks("{policy}/{language}/generations/{start}.jsonl"),
        manifests=paths_blocks("{policy}/{language}/generations/{start}.manifest.json"),
    output:
        gathered=place("{policy}/{language}/generations.jsonl"),
        manifest=place("{policy}/{language}/generations.manifest.json"),
    log:
        place("logs/generate/{policy}.{language}.log"),
    benchmark:
        place("benchmarks/generate/{policy}.{language}.tsv")
    localrule: True
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=60,
    params:
        scripts=path_scripts,
        code=digest_code("gather"),
        lock=LOCK,
    message:
        "gather: {output.gathered}"
    shell:
        r"""
        python {params.scripts:q}/gather.py \
            --prompts {input.prompts:q} \
            --parts {input.parts:q} \
            --output {output.gathered:q} \
            2>&1 | tee {log:q}
        """
