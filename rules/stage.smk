"""Fetches what a run needs from the hub, so that compute nodes need no network (HF_HUB_OFFLINE=1).

Out: {results}/stage.manifest.json
     {results}/stage.lock.json: commit and content digest of each item, for the config's key `lock`
"""


include: "helpers/stage.smk"


rule stage:
    """Models, tokenizers, datasets of prompts and tasks, and the tasks of the suites."""
    output:
        manifest=place("stage.manifest.json"),
        lock=place("stage.lock.json"),
    log:
        place("logs/stage.log"),
    benchmark:
        place("benchmarks/stage.tsv")
    localrule: True
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=8000,
        runtime=720,
    params:
        scripts=path_scripts,
        # A function, so that it is only evaluated for this target.
        wanted=lambda wc: options_stage(),
        state=STATE,
        code=digest_code("stage"),
        lock=LOCK,
    message:
        "stage: all that comes from the hub"
    shell:
        r"""
        python {params.scripts:q}/stage.py \
            {params.wanted:q} \
            --state {params.state:q} \
            --lock {output.lock:q} \
            --output {output.manifest:q} \
            2>&1 | tee {log:q}
        """
