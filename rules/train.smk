"""Tunes a policy with LoRA or in full.

In:  the setting's pairs.jsonl, completions.jsonl or prompts.jsonl, the policy; for a later round the checkpoint of the
     round before; for online DPO the reward model.
Out: {model}/{pool}/{setting}/checkpoint/: adapter or weights, tokenizer, chat template, metrics.jsonl, manifest.json
"""


include: "helpers/train.smk"


TARGETS = ("reference", "best", "pair", "prompts")


rule train:
    """Runs SFT, DPO or online DPO; resumable state is under state/, and only the final checkpoint is declared."""
    input:
        data=path_training_data,
        models=wait_for_checks("{model}/{pool}/{setting}/checkpoint/manifest.json"),
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        model=lambda wc: paths_model(GRID.policies[wc.model]),
        start=lambda wc: paths_checkpoint(GRID.round_before(find_run(wc))),
        reward=lambda wc: paths_model(online_reward(wc)) if online_reward(wc) else [],
        template=place("{model}/template.json"),
        reward_template=lambda wc: path_template("reward", find_run(wc).reward_model) if online_reward(wc) else [],
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
    # Evaluations wait for trainings: those first, so that the GPUs are not idle at the end. See docs/performance.md.
    priority: 1
    conda:
        "../envs/croco.yaml"
    threads: lambda wc: GRID.training_resource("threads", find_run(wc))
    resources:
        **training_job(),
    params:
        scripts=path_scripts,
        gpus=lambda wc, resources: options_gpus(resources, recipe_of(wc), GRID.policies[wc.model]),
        processes=count_processes,
        model=lambda wc: GRID.path(GRID.policies[wc.model]["path"]),
        loading=lambda wc: options_of(
            GRID.policies[wc.model], "revision", "dtype", "trust_remote_code", "template_options"
        ),
        identity=lambda wc: [
            identify_model(row) for row in (GRID.policies[wc.model], online_reward(wc)) if row is not None
        ],
        start=lambda wc: options_adapter("--start", GRID.round_before(find_run(wc))),
        online=options_online,
        guards=lambda wc: options_of({"guards": GRID.guards_of(find_run(wc))}, "guards"),
        objective=lambda wc: find_run(wc).objective,
        origin=lambda wc: "--off-policy" if "responses" in find_run(wc).row else [],
        options=lambda wc: options_of({**recipe_of(wc), "seed": find_run(wc).seed}, *RECIPE_KEYS, "seed"),
        folder=lambda wc: place(f"{wc.model}/{wc.pool}/{wc.setting}/checkpoint"),
        state=STATE,
        code=digest_code("train"),
        lock=LOCK,
    message:
        "train: {wildcards.model}, {wildcards.pool}, {wildcards.setting} ({resources.gpu} GPU)"
    shell:
        r"""
        python {params.scripts:q}/with_gpus.py {params.gpus:q} -- \
            python {params.scripts:q}/train.py \
            --objective {params.objective:q} \
            --data {input.data:q} \
            --ledger {input.ledger:q} \
            {params.origin:q} \
            --model {params.model:q} \
            {params.loading:q} \
            {params.start:q} \
            --processes {params.processes:q} \
            {params.options:q} \
            {params.online:q} \
            {params.guards:q} \
            --state {params.state:q} \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """


use rule train as train_full with:
    output:
        expand(
            place("{model}/{pool}/{setting}/checkpoint/{file}"), file=list_checkpoint_files("full"), allow_missing=True
        ),
    wildcard_constraints:
        setting=match_settings(*TARGETS, weights="full"),
