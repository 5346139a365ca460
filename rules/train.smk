"""Tuning with LoRA, or in full.

In:  the setting's pairs.jsonl, completions.jsonl or prompts.jsonl, the policy; of a later round the checkpoint of the one
     before; of online DPO the reward model.
Out: {model}/{pool}/{setting}/checkpoint/: adapter or weights, tokenizer, chat template, metrics.jsonl, manifest.json
"""

TARGETS = ("reference", "best", "pair", "prompts")


rule train:
    """SFT, DPO or online DPO; resumable state lies under state/, only the final checkpoint is declared."""
    input:
        data=find_training_data,
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        model=lambda wc: list_model_files(GRID.policies[wc.model]),
        start=lambda wc: list_checkpoint(GRID.round_before(find_run(wc))),
        reward=lambda wc: list_model_files(find_online_reward(wc)) if find_online_reward(wc) else [],
        template=lambda wc: find_template("reward", GRID.reward_of(find_run(wc))) if find_online_reward(wc) else [],
    output:
        expand(
            place("{model}/{pool}/{setting}/checkpoint/{file}"), file=list_checkpoint_files("lora"), allow_missing=True
        ),
    log:
        place("logs/train/{model}.{pool}.{setting}.log"),
    benchmark:
        place("benchmarks/train/{model}.{pool}.{setting}.tsv")
    wildcard_constraints:
        setting=match_settings(*TARGETS, weights="lora"),
    conda:
        "../envs/croco.yaml"
    threads: lambda wc: GRID.training_resource("threads", find_run(wc))
    resources:
        gpu=lambda wc: GRID.resource("gpu", [get_recipe(wc), GRID.policies[wc.model]]),
        mem_mb=lambda wc, attempt: GRID.training_resource("mem_mb", find_run(wc), attempt),
        runtime=lambda wc, attempt: GRID.resource("runtime", [get_recipe(wc), GRID.policies[wc.model]], attempt),
    params:
        lease=lambda wc, resources: lease(resources, get_recipe(wc), GRID.policies[wc.model]),
        processes=count_processes,
        model=lambda wc: GRID.path(GRID.policies[wc.model]["path"]),
        loading=lambda wc: list_options(
            GRID.policies[wc.model], "revision", "dtype", "trust_remote_code", "template_options"
        ),
        identity=lambda wc: [
            identify_model(row) for row in (GRID.policies[wc.model], find_online_reward(wc)) if row is not None
        ],
        start=lambda wc: list_adapter_option("--start", GRID.round_before(find_run(wc))),
        online=list_online_options,
        guards=lambda wc: list_options({"guards": GRID.guards_of(find_run(wc))}, "guards"),
        objective=lambda wc: find_run(wc).row["objective"],
        origin=lambda wc: "--off-policy" if "responses" in find_run(wc).row else [],
        options=lambda wc: list_options({**get_recipe(wc), "seed": find_run(wc).seed}, *RECIPE_KEYS, "seed"),
        folder=lambda wc: place(f"{wc.model}/{wc.pool}/{wc.setting}/checkpoint"),
        state=STATE,
        code=digest_code("train"),
        lock=LOCK,
    message:
        "train: {wildcards.model}, {wildcards.pool}, {wildcards.setting} ({resources.gpu} GPU)"
    shell:
        r"""
        {params.lease:q} python scripts/train.py --objective {params.objective:q} --data {input.data:q} \
            --ledger {input.ledger:q} {params.origin:q} --model {params.model:q} {params.loading:q} {params.start:q} \
            --processes {params.processes:q} {params.options:q} {params.online:q} {params.guards:q} --state {params.state:q} --output {params.folder:q} 2>&1 | tee {log:q}
        """


use rule train as train_full with:
    output:
        expand(
            place("{model}/{pool}/{setting}/checkpoint/{file}"), file=list_checkpoint_files("full"), allow_missing=True
        ),
    wildcard_constraints:
        setting=match_settings(*TARGETS, weights="full"),
