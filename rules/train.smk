"""Tuning with LoRA.

In:  the setting's pairs.jsonl or completions.jsonl, the policy.
Out: {model}/{pool}/{setting}/checkpoint/: adapter, tokenizer, chat template, metrics.jsonl, manifest.json
"""


rule train:
    """SFT or DPO; resumable state lies under state/, only the final checkpoint is declared."""
    input:
        data=find_training_data,
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        model=lambda wc: list_model_files(GRID.policies[wc.model]),
    output:
        expand(place("{model}/{pool}/{setting}/checkpoint/{file}"), file=CHECKPOINT_FILES, allow_missing=True),
    log:
        place("logs/train/{model}.{pool}.{setting}.log"),
    benchmark:
        place("benchmarks/train/{model}.{pool}.{setting}.tsv")
    conda:
        "../envs/croco.yaml"
    threads: lambda wc: GRID.resource("threads", [get_recipe(wc), GRID.policies[wc.model]])
    resources:
        gpu=lambda wc: GRID.resource("gpu", [get_recipe(wc), GRID.policies[wc.model]]),
        mem_mb=lambda wc, attempt: size_training(wc, attempt),
        runtime=lambda wc, attempt: GRID.resource("runtime", [get_recipe(wc), GRID.policies[wc.model]], attempt),
    params:
        lease=lambda wc, resources: lease(resources, get_recipe(wc), GRID.policies[wc.model]),
        launcher=list_launcher,
        model=lambda wc: GRID.path(GRID.policies[wc.model]["path"]),
        loading=lambda wc: list_options(
            GRID.policies[wc.model], "revision", "dtype", "trust_remote_code", "template_options"
        ),
        identity=lambda wc: identify_model(GRID.policies[wc.model]),
        objective=lambda wc: find_run(wc).row["objective"],
        origin=lambda wc: "--off-policy" if GRID.responses_of(find_run(wc)) != wc.model else [],
        options=lambda wc: list_options({**get_recipe(wc), "seed": find_run(wc).seed}, *RECIPE_KEYS, "seed"),
        folder=lambda wc: place(f"{wc.model}/{wc.pool}/{wc.setting}/checkpoint"),
        state=STATE,
        code=digest_code("train"),
        lock=LOCK,
    message:
        "train: {wildcards.model}, {wildcards.pool}, {wildcards.setting} ({resources.gpu} GPU)"
    shell:
        r"""
        {params.lease:q} {params.launcher:q} scripts/train.py --objective {params.objective:q} --data {input.data:q} \
            --ledger {input.ledger:q} {params.origin:q} --model {params.model:q} {params.loading:q} \
            {params.options:q} --state {params.state:q} --output {params.folder:q} 2>&1 | tee {log:q}
        """
