"""Goes on with a beginning, one character after the other, in as many ways as you like.

    lstmserve serve text=examples/text/sonnets.keras
    python examples/text/write.py "My love" --endings 3 --temperature 0.8

The server knows numbers only, and keeps nothing: alphabet, chance and state are on this side of the wire.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lstmserve import Client, LstmServeError, State

if TYPE_CHECKING:
    from collections.abc import Iterator

ALPHABET: str = json.loads((Path(__file__).parent / "sonnets.json").read_text())["alphabet"]


def encode(text: str) -> np.ndarray:
    """Returns the number of each character, (time, 1): the server knows numbers only.

    Raises:
        ValueError: the text is empty, or has a character that the model has never seen.
    """
    strange = "".join(sorted(set(text) - set(ALPHABET)))
    if strange or not text:
        message = f"the beginning has {strange!r}" if strange else "the beginning is empty"
        raise ValueError(f"{message}; expected one or more of the characters that the model knows: {ALPHABET!r}")
    return np.array([[ALPHABET.index(character)] for character in text])


def choose(probabilities: np.ndarray, temperature: float, chance: np.random.Generator) -> int:
    """Draws the number of the next character; a temperature of 0 takes the likeliest, 1 believes the model."""
    if temperature == 0:
        return int(probabilities.argmax())
    weights = (probabilities.astype(np.float64) / probabilities.max()) ** (1 / temperature)
    return int(chance.choice(len(weights), p=weights / weights.sum()))


def endings(
    client: Client, output: np.ndarray, state: State, length: int, temperature: float, seeds: list[int]
) -> Iterator[list[str]]:
    """Yields, `length` times, the next character of each ending of what `output` and `state` have come from."""
    # The beginning was read once. Its state is a plain value in our hands, so any number of endings starts from copies of it,
    # here as the rows of one batch. A row's answer does not depend on its company, and each ending draws from a seed of its
    # own: it is the same text alone and among others.
    outputs, states = np.stack([output] * len(seeds)), State.stack([state] * len(seeds))
    chances = [np.random.default_rng(seed) for seed in seeds]
    for written in range(1, length + 1):
        chosen = [choose(row, temperature, chance) for row, chance in zip(outputs, chances, strict=True)]
        yield [ALPHABET[number] for number in chosen]
        if written < length:
            outputs, states = client.step(np.array(chosen)[:, None], states)


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Goes on with a beginning in the manner of Shakespeare's sonnets.")
    parser.add_argument("beginning", help="best that of a line, since the model was trained from beginnings of lines")
    parser.add_argument("--length", type=int, default=300, help="characters to write (default %(default)s)")
    parser.add_argument("--endings", type=int, default=1, help="ways to go on (default %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.5, help="0 leaves no choice (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first ending, then counting (default %(default)s)")
    parser.add_argument("--address", default="localhost:50051", help="of the server (default %(default)s)")
    parser.add_argument("--model", default="text", help="its name on the server (default %(default)s)")
    options = parser.parse_args()
    for name, least in (("length", 1), ("endings", 1), ("temperature", 0), ("seed", 0)):
        value = getattr(options, name)
        if not least <= value < float("inf"):
            parser.error(f"argument --{name}: {value} came; expected {least} or more")
    return options


def main() -> None:
    """Writes the first ending as it comes, and the others behind it."""
    options = arguments()
    seeds = [options.seed + number for number in range(options.endings)]
    others = [options.beginning] * (options.endings - 1)
    try:
        with Client(options.address, model=options.model) as client:
            output, state = client.forward(encode(options.beginning))
            print(options.beginning, end="", flush=True)
            for first, *rest in endings(client, output, state, options.length, options.temperature, seeds):
                print(first, end="", flush=True)
                others = [text + character for text, character in zip(others, rest, strict=True)]
    except (LstmServeError, ValueError) as error:
        sys.exit(f"write.py: {error}")
    print("".join(f"\n\n---\n\n{text}" for text in others))


if __name__ == "__main__":
    main()
