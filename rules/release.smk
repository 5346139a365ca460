"""Packs a run for release: model and data with cards, manifest and checksums.

In:  the run's checkpoint, its data and ledger, summary.csv, the policy.
Out: {results}/release/{model}/{pool}/{setting}/manifest.json, checksums.txt, and beside them model/ and dataset/, whose
     file names depend on the model; checksums.txt lists them.
"""


include: "helpers/release.smk"


rule write_release:
    """Writes one run's bundle and replaces an earlier one."""
    input:
        checkpoint=lambda wc: [
            place(f"{wc.model}/{wc.pool}/{wc.setting}/checkpoint/{file}")
            for file in list_checkpoint_files(recipe_of(wc)["weights"])
        ],
        data=path_training_data,
        data_manifest=lambda wc: path_training_data(wc).replace(".jsonl", ".manifest.json"),
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        summary=place("summary.csv"),
        model=lambda wc: paths_model(GRID.policies[wc.model]),
        templates=[f"{SCRIPTS}/templates/model_card.md.j2", f"{SCRIPTS}/templates/dataset_card.md.j2"],
    output:
        manifest=place("release/{model}/{pool}/{setting}/manifest.json"),
        checksums=place("release/{model}/{pool}/{setting}/checksums.txt"),
    log:
        place("logs/release/{model}.{pool}.{setting}.log"),
    benchmark:
        place("benchmarks/release/{model}.{pool}.{setting}.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        # An adapter is merged in float32, whatever the policy's dtype.
        mem_mb=lambda wc, attempt: GRID.resource(
            "mem_mb",
            [GRID.policies[wc.model] | ({"dtype": "float32"} if release_row(wc)["weights"] == "merged" else {})],
            attempt,
        ),
        runtime=lambda wc, attempt: GRID.resource("runtime", [GRID.policies[wc.model]], attempt),
    params:
        scripts=path_scripts,
        model=lambda wc: GRID.path(GRID.policies[wc.model]["path"]),
        loading=lambda wc: options_of(GRID.policies[wc.model], "revision", "dtype", "trust_remote_code"),
        identity=lambda wc: identify_model(GRID.policies[wc.model]),
        options=lambda wc: options_of(release_row(wc), "weights", "name", "licence"),
        run=lambda wc: f"{wc.model}/{wc.pool}/{wc.setting}",
        checkpoint=lambda wc, input: str(Path(input.checkpoint[0]).parent),
        folder=lambda wc, output: str(Path(output.manifest).parent),
        code=digest_code("release"),
        lock=LOCK,
    message:
        "release: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"
    shell:
        r"""
        python {params.scripts:q}/release.py \
            --model {params.model:q} \
            {params.loading:q} \
            --checkpoint {params.checkpoint:q} \
            --data {input.data:q} \
            --data-manifest {input.data_manifest:q} \
            --ledger {input.ledger:q} \
            --summary {input.summary:q} \
            --run {params.run:q} \
            {params.options:q} \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """
