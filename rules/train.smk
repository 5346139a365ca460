"""Tuning with LoRA.

In:  the setting's pairs.jsonl or completions.jsonl, the policy.
Out: {model}/{pool}/{setting}/checkpoint/: adapter, tokenizer, chat template, metrics.jsonl, manifest.json
"""


rule train:
    """SFT or DPO; resumable state lies under state/, only the final checkpoint is declared."""
    input:
        data=find_training_data,
        model=lambda wc: list_model_files(GRID.policies[wc.model]),
    output:
        expand(place("{model}/{pool}/{setting}/checkpoint/{file}"), file=CHECKPOINT_FILES, allow_missing=True),
    log:
        place("logs/train/{model}.{pool}.{setting}.log"),
    benchmark:
        place("benchmarks/train/{model}.{pool}.{setting}.tsv")
    conda:
        "../envs/croco.yaml"
    threads: lambda wc: get_resource(get_recipe(wc), "threads")
    resources:
        gpu=lambda wc: get_resource(get_recipe(wc), "gpu"),
        mem_mb=lambda wc: get_resource(get_recipe(wc), "mem_mb"),
        runtime=lambda wc: get_resource(get_recipe(wc), "runtime"),
    params:
        launcher=list_launcher,
        model=lambda wc: list_model_options(GRID.policies[wc.model]),
        identity=lambda wc: identify_model(GRID.policies[wc.model]),
        objective=lambda wc: find_run(wc).row["objective"],
        options=lambda wc: list_options({**get_recipe(wc), "seed": find_run(wc).seed}, *RECIPE_KEYS, "seed"),
        folder=lambda wc: place(f"{wc.model}/{wc.pool}/{wc.setting}/checkpoint"),
        state=STATE,
        code=digest_code("train"),
        lock=LOCK,
    message:
        "train: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"
    shell:
        r"""
        {params.launcher:q} scripts/train.py --objective {params.objective:q} --data {input.data:q} \
            {params.model:q} {params.options:q} --state {params.state:q} --output {params.folder:q} 2>&1 | tee {log:q}
        """
