from croco.state import list_checkpoint_files
from croco.objectives import OBJECTIVES
from croco.runs import name_data

# Keys of a recipe that are options of scripts/train.py by the same name.
RECIPE_KEYS = (
    "learning_rate schedule warmup epochs weight_decay batch micro_batch max_length too_long beta loss label_smoothing "
    "weights lora_r lora_alpha lora_dropout lora_targets lora_coverage loss_on validation checkpoint save_every "
    "checkpointing optimizer generation_batch"
).split()


def training_job():
    """GPUs, memory and time of a training."""

    def ask(name, wildcards, attempt=1):
        run = find_run(wildcards)
        least = least_of(name, "train", wildcards, GRID.training_resource("gpu", run))
        return GRID.training_resource(name, run, attempt, least)

    return job_resources(ask)


def count_processes(wildcards):
    return GRID.count_processes(find_run(wildcards))


def online_reward(wildcards):
    """The reward model that takes part in a training, or None."""
    run = find_run(wildcards)
    return GRID.reward_models[run.reward_model] if OBJECTIVES[run.objective].samples else None


def options_online(wildcards):
    """Which reward model scores, and how the policy samples, in online DPO."""
    reward, policy = online_reward(wildcards), GRID.policies[wildcards.model]
    if not reward:
        return []
    names = ("revision", "dtype", "max_length", "trust_remote_code", "template_options")
    loading = {f"reward_{name}": reward.get(name) for name in names}
    sampling = options_of(policy, "temperature", "top_p", "max_tokens")
    return ["--reward-model", GRID.path(reward["path"]), *options_of(loading, *loading), *sampling]


def path_training_data(wildcards):
    name = name_data(find_run(wildcards).row["target"])
    return place(f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}/{name}.jsonl")
