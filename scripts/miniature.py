"""Make the miniature: tiny models, trained from scratch on generated text, so that everything runs offline.

Three steps, each with its own --help:

  python scripts/miniature.py world  --languages en de --seed 0 --output DIR
  python scripts/miniature.py policy --world DIR --languages en de --style sentence --output DIR/policy
  python scripts/miniature.py reward --policy DIR/policy --languages en de --output DIR/reward

``world`` writes parallel prompts (train, dev, heldout), pairs of good and damaged answers for an audit (comparisons),
lm-eval data (heldout, untouched) and the tokenizer. ``policy`` pretrains a small Llama on noisy chats and clean
parallel sentences. ``reward`` tunes a classifier on English preferences only.
"""

import math
import random
import tempfile
from pathlib import Path

from croco import cli
from croco.digests import derive_seed
from croco.miniature.world import (
    LANGUAGES,
    TUNED_FAMILIES,
    UNTOUCHED_FAMILY,
    draw_answer,
    facts,
    oracle_quality,
    questions,
    split_facts,
    spoil_answer,
)
from croco.records import write_jsonl

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def main():
    args = parse_arguments()
    step = vars(args).pop("step")
    step(args)


def parse_arguments():
    parser = cli.parser(__doc__)
    steps = parser.add_subparsers(required=True, metavar="{world,policy,reward}")

    world = steps.add_parser("world", help="write prompts, lm-eval data and the tokenizer")
    world.add_argument("--languages", nargs="+", required=True, choices=LANGUAGES, help="languages of the world")
    world.add_argument("--seed", type=cli.whole(0), default=0, help="seed of the split of facts and of the references")
    world.add_argument("--vocabulary", type=cli.positive, default=1000, help="BPE vocabulary size")
    world.set_defaults(step=make_world)

    policy = steps.add_parser("policy", help="pretrain a small Llama from scratch")
    policy.add_argument("--world", type=Path, required=True, help="folder that `world` wrote")
    policy.add_argument("--languages", nargs="+", required=True, choices=LANGUAGES, help="languages to learn")
    policy.add_argument(
        "--style", choices=("sentence", "label"), default="sentence", help="how the policy writes answers"
    )
    policy.add_argument("--chats", type=cli.positive, default=30000, help="noisy chats to train on")
    policy.add_argument("--sentences", type=cli.positive, default=15000, help="clean two-language sentences")
    policy.add_argument("--batch", type=cli.positive, default=20, help="sequences per step")
    policy.add_argument("--learning-rate", type=cli.number(above=0), default=3e-3, help="peak")
    policy.add_argument("--seed", type=cli.whole(0), default=0, help="seed of the data and the initialisation")
    policy.set_defaults(step=train_policy)

    reward = steps.add_parser("reward", help="tune a reward model on English preferences")
    reward.add_argument("--languages", nargs="+", required=True, choices=LANGUAGES, help="languages of the world")
    reward.add_argument("--policy", type=Path, required=True, help="policy whose body the reward model starts from")
    reward.add_argument("--pairs", type=cli.positive, default=4000, help="English preference pairs")
    reward.add_argument(
        "--seed", type=cli.whole(0), default=0, help="the world's seed, also for the pairs, the head and the order"
    )
    reward.set_defaults(step=train_reward)

    for step in (world, policy, reward):
        step.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    return parser.parse_args()


def make_world(args):
    splits = split_facts(args.seed)
    for language in args.languages:
        rng = random.Random(f"{args.seed}/references/{language}")
        for split, some_facts in splits.items():
            asked = questions(some_facts, language)
            write_jsonl(
                args.output / "prompts" / split / f"{language}.jsonl",
                # References imitate a data set's answers: another style, and mixed quality.
                (
                    {"id": q.prompt_id, "text": q.text, "reference": draw_answer(q, rng, args.languages, "label")}
                    for q in asked
                ),
            )
        tasks = {"heldout": splits["heldout"], "untouched": facts(UNTOUCHED_FAMILY)}
        for task, some_facts in tasks.items():
            asked = questions(some_facts, language)
            write_jsonl(
                args.output / "tasks" / task / f"{language}.jsonl",
                ({"id": q.prompt_id, "question": q.text, "answer": q.answer()} for q in asked),
            )
        write_jsonl(args.output / "comparisons" / f"{language}.jsonl", compare_answers(language, splits, args.seed))
    save_tokenizer(args)
    cli.write_manifest(
        args.output / "world.manifest.json", __file__, args, {}, facts={k: len(v) for k, v in splits.items()}
    )


def compare_answers(language, splits, seed):
    """Pairs of a good and a damaged answer to every prompt, in the form of scripts/audit.py --comparisons."""
    rng = random.Random(f"{seed}/comparisons/{language}")
    for question in questions([fact for some_facts in splits.values() for fact in some_facts], language):
        for check, spoilt in spoil_answer(question, rng).items():
            yield {
                "prompt_id": question.prompt_id,
                "language": language,
                "check": check,
                "answer": question.answer(),
                "damaged": spoilt,
            }


def save_tokenizer(args):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=args.vocabulary,
        special_tokens=[PAD, END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chats(args.languages, 4000, "sentence", args.seed), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="left")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(args.output / "tokenizer")


def chats(languages, count, style, seed):
    """Conversations about all facts, answers of mixed quality, as text with the chat's special tokens."""
    rng = random.Random(f"{seed}/chats/{style}")
    pools = {language: all_questions(language) for language in languages}
    for _ in range(count):
        language = rng.choice(languages)
        question = rng.choice(rng.choice(pools[language]))
        yield f"{USER}{question.text}{END}{ASSISTANT}{draw_answer(question, rng, languages, style)}{END}"


def parallel_sentences(languages, count, seed):
    """True sentences with their translations, which connect the languages."""
    rng = random.Random(f"{seed}/sentences")
    pools = {language: all_questions(language) for language in languages}
    for _ in range(count):
        first, second = rng.sample(languages, 2) if len(languages) > 1 else languages * 2
        family = rng.randrange(len(pools[first]))
        which = rng.randrange(len(pools[first][family]))
        yield f"{pools[first][family][which].answer()}\n{pools[second][family][which].answer()}{END}"


def all_questions(language):
    return [questions(facts(family), language) for family in (*TUNED_FAMILIES, UNTOUCHED_FAMILY)]


def train_policy(args):
    import torch
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(args.world / "tokenizer")
    texts = [
        *chats(args.languages, args.chats, args.style, args.seed),
        *parallel_sentences(args.languages, args.sentences, args.seed),
    ]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]

    torch.manual_seed(derive_seed(args.seed, args.style))
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=3,  # heads of 32, the smallest size that vLLM's kernels support
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    losses = pretrain(
        model, ids, tokenizer.pad_token_id, batch_size=args.batch, peak_lr=args.learning_rate, seed=args.seed
    )
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    inputs = {"tokenizer": args.world / "tokenizer" / "tokenizer.json"}
    cli.write_manifest(
        args.output / "manifest.json", __file__, args, inputs, loss=losses[-1], parameters=model.num_parameters()
    )


def pretrain(model, ids, pad, batch_size, peak_lr, seed):
    """One epoch of next-token prediction; sequences of like length share a batch, batches come in random order."""
    import torch

    rng = random.Random(f"{seed}/order")
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), rng.random()))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, weight_decay=0.01, betas=(0.9, 0.98))
    warmup = max(1, len(batches) // 20)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / len(batches)))),
    )
    model.train()
    losses = []
    bar = cli.progress(batches, desc="pretrain", unit="step")
    for batch in bar:
        width = max(len(ids[i]) for i in batch)
        tokens = torch.tensor([ids[i] + [pad] * (width - len(ids[i])) for i in batch])
        labels = tokens.masked_fill(tokens == pad, -100)
        loss = model(input_ids=tokens, labels=labels).loss  # right padding: causal attention never sees it
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}", refresh=False)
    return losses


def train_reward(args):
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    tokenizer = AutoTokenizer.from_pretrained(args.policy)
    torch.manual_seed(derive_seed(args.seed, "reward"))  # the head starts at random
    model = AutoModelForSequenceClassification.from_pretrained(
        args.policy, num_labels=1, dtype=torch.float32, pad_token_id=tokenizer.pad_token_id, use_safetensors=True
    )
    with tempfile.TemporaryDirectory() as folder:
        config = RewardConfig(
            output_dir=folder,
            learning_rate=7e-4,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            num_train_epochs=1.5,
            per_device_train_batch_size=32,
            max_length=128,
            seed=derive_seed(args.seed, "reward", bits=31),
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
        )
        pairs = Dataset.from_list(list(english_pairs(args)))
        trainer = RewardTrainer(model=model, args=config, train_dataset=pairs, processing_class=tokenizer)
        trainer.train()
    final = trainer.state.log_history[-1]
    trainer.model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    inputs = {"policy": args.policy / "model.safetensors"}
    cli.write_manifest(args.output / "manifest.json", __file__, args, inputs, accuracy=final["accuracy"])


def english_pairs(args):
    """English preferences by the oracle on the train split's facts; one in twenty is flipped, as annotators err."""
    rng = random.Random(f"{args.seed}/preferences")
    asked = questions(split_facts(args.seed)["train"], "en")
    for _ in range(args.pairs):
        question = rng.choice(asked)
        better = worse = ""
        while oracle_quality(question, better) <= oracle_quality(question, worse):
            better, worse = (draw_answer(question, rng, args.languages) for _ in range(2))
        if rng.random() < 0.05:
            better, worse = worse, better
        yield {
            name: [{"role": "user", "content": question.text}, {"role": "assistant", "content": answer}]
            for name, answer in (("chosen", better), ("rejected", worse))
        }


if __name__ == "__main__":
    cli.run(main)
