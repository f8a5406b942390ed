"""Trains abacus, the embedded model that solves arithmetic step by step, and writes its complete folder.

Run: python examples/train_abacus.py --out src/armlet/checkpoints/abacus
It takes under an hour on one thread. On the same machine and versions, the same seed gives the same weights.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from abacus_folder import PROMPT_END, extend_to_all_bytes, make_model, make_tokenizer, write_card
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from armlet.evaluation.tasks.arithmetic import LEVELS, exercise, stated

STEPS = 5000
BATCH = 32  # problems in a step
SORTED = 16  # number of batches that are sorted by length together, so that there is little padding
PEAK, WARMUP, CLIP, DECAY = 2e-3, 200, 1.0, 0.01

WEIGHTS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 6: 3, 7: 2, 8: 1, 9: 1}
"""Relative frequency of each level."""

EASY, OPENED = 3, 0.35  # levels up to EASY come first; all nine are in use after this share of the steps

FILLED, LONGEST_RUN = 0.125, 60
RUNS = ("/", ".", "~", " ", "abcdefghijklmnopqrstuvwxyz    ")
"""Fillers: a run of one character, or of random letters with spaces among them."""

IGNORED = -100  # the label of tokens that the loss excludes

Pair = tuple[list[int], list[int]]  # the tokens of a prompt, and of its answer


def filled(rng: random.Random, question: str) -> str:
    """Adds a meaningless run to one of eight questions: half of the runs before it, the others after or in it."""
    if rng.random() >= FILLED:
        return question
    run = "".join(rng.choices(rng.choice(RUNS), k=rng.randint(1, LONGEST_RUN)))
    index = rng.choice((0, 0, len(question), rng.randint(0, len(question))))
    return question[:index] + run + question[index:]


def level_at(rng: random.Random, progress: float) -> int:
    """Draws one of the levels in use after this share of the steps."""
    hardest = EASY + round((max(LEVELS) - EASY) * min(1.0, progress / OPENED))
    levels = range(1, hardest + 1)
    return rng.choices(levels, [WEIGHTS[level] for level in levels])[0]


def pairs(tokenizer: Qwen2Tokenizer, seed: int, steps: int) -> Iterator[Pair]:
    """Yields problems of the training split endlessly."""
    rng = random.Random(seed)
    for index in count():
        level = level_at(rng, index / (BATCH * steps))
        problem = exercise(index, seed=seed, difficulty=level, split="train")
        prompt = filled(rng, problem.question) + PROMPT_END
        ids: Any = tokenizer([prompt, problem.answer + str(tokenizer.eos_token)])["input_ids"]
        yield ids[0], ids[1]


def batches(tokenizer: Qwen2Tokenizer, seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields tokens and labels, each `[BATCH, seq]`; a label is the next token if it belongs to the answer."""
    rng, stream = random.Random(seed), pairs(tokenizer, seed, steps)
    pad: Any = tokenizer.pad_token_id
    while True:
        pool = sorted((next(stream) for _ in range(BATCH * SORTED)), key=lambda pair: sum(map(len, pair)))
        starts = list(range(0, len(pool), BATCH))
        rng.shuffle(starts)
        for start in starts:
            yield padded(pool[start : start + BATCH], pad)


def padded(some: Sequence[Pair], pad: int) -> tuple[Tensor, Tensor]:
    """Returns tokens and labels, padded on the right, which a causal model does not see."""
    shape = len(some), max(len(prompt) + len(answer) for prompt, answer in some) - 1
    tokens, labels = torch.full(shape, pad), torch.full(shape, IGNORED)
    for row, (prompt, answer) in enumerate(some):
        whole, first = torch.tensor(prompt + answer), len(prompt) - 1
        tokens[row, : len(whole) - 1] = whole[:-1]
        labels[row, first : len(whole) - 1] = whole[first + 1 :]
    return tokens, labels


def train(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, steps: int, seed: int) -> None:
    """Trains with AdamW, a warm-up and then a cosine to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=DECAY)
    warmup = min(WARMUP, max(1, steps // 10))
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])
    stream = batches(tokenizer, seed, steps)
    with progress_bar() as bar:
        task = bar.add_task("training", total=steps, loss="")
        for step in range(1, steps + 1):
            loss = update(model, optimizer, *next(stream))
            schedule.step()
            bar.update(task, advance=1, loss=f"loss {loss:.4f}")
            if step % max(1, steps // 50) == 0:
                bar.console.print(f"step {step}: loss {loss:.4f}")


def update(model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, tokens: Tensor, labels: Tensor) -> float:
    """Does one step; returns the loss before it, in nats per answer token."""
    logits = model(input_ids=tokens, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    return loss.item()


def progress_bar() -> Progress:
    """Creates a bar with steps, loss, elapsed and remaining time."""
    columns = (TextColumn("{task.description} {task.fields[loss]}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())


def right_answers(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, level: int, problems: int) -> int:
    """Counts the right greedy answers to the first test problems of a level."""
    exercises = sorted((exercise(index, difficulty=level) for index in range(problems)), key=lambda e: len(e.answer))
    right = 0
    for start in range(0, problems, 250):
        some = exercises[start : start + 250]
        batch = tokenizer([e.question + PROMPT_END for e in some], return_tensors="pt", padding=True)
        out: Any = model.generate(**batch)  # type: ignore[operator]
        answers = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(stated(answer) == e.value for answer, e in zip(answers, some, strict=True))
    return right


def main(
    out: Annotated[Path, typer.Option(help="Output folder; it must not exist.")],
    steps: Annotated[int, typer.Option(min=1, help="Number of optimiser steps.")] = STEPS,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the problems.")] = 0,
    problems: Annotated[int, typer.Option(min=1, help="Number of test problems of each level, for the card.")] = 2000,
) -> None:
    """Train abacus and write weights, tokenizer and card."""
    if out.exists():
        sys.exit(f"{out} exists already; remove it to train again.")
    torch.set_num_threads(1)  # for a model this small, a second thread gains little, and costs much on a busy machine
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    train(model, tokenizer, steps, seed)
    extend_to_all_bytes(model, tokenizer)
    model.eval().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it readable only for its owner
    tokenizer.save_pretrained(out)
    right = {level: right_answers(model, tokenizer, level, problems) for level in LEVELS}
    write_card(out, model, right, problems, settings(steps, seed))


def settings(steps: int, seed: int) -> dict[str, str]:
    """The training settings for the card."""
    weights = ", ".join(f"{level}: {weight}" for level, weight in WEIGHTS.items())
    return {
        "options": f"--out FOLDER --steps {steps} --seed {seed}",
        "filled": f"{FILLED:.1%}",
        "longest": str(LONGEST_RUN),
        "Seed": str(seed),
        "Steps": f"{steps:,}, each of {BATCH} new problems",
        "Optimiser": f"AdamW, weight decay {DECAY}, gradients clipped at norm {CLIP}, one thread",
        "Learning rate": f"{PEAK} after {WARMUP} steps of warm-up, then a cosine to 0",
        "Levels": f"1 to {EASY} first, all after {OPENED:.0%} of the steps; weights by level {weights}",
    }


if __name__ == "__main__":
    typer.run(main)
