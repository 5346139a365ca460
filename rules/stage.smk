"""What a run takes from the hub, fetched ahead, so that compute nodes need no network (HF_HUB_OFFLINE=1).

Out: {results}/stage.manifest.json
"""


rule stage:
    """Models, tokenizers, datasets of prompts and tasks, and the tasks of the suites."""
    output:
        manifest=place("stage.manifest.json"),
    log:
        place("logs/stage.log"),
    benchmark:
        place("benchmarks/stage.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=8000,
        runtime=720,
    params:
        # A function, so that no other target's params hold it.
        wanted=lambda wc: list_staged(),
        state=STATE,
        code=digest_code("stage"),
        lock=LOCK,
    message:
        "stage: all that comes from the hub"
    shell:
        r"""
        python scripts/stage.py {params.wanted:q} --state {params.state:q} --output {output.manifest:q} 2>&1 \
            | tee {log:q}
        """
