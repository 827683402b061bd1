"""How long a request waits for its first token while others are at work."""

from tests.generate.test_engine import CONFIG, PROMPTS, random_params
from tulu_jax.generate import Engine, Request
from tulu_jax.serve.runner import READ_AT_MOST


class Letters:
    """A tokenizer whose tokens are letters."""

    special_ids = frozenset()
    vocab_size = CONFIG.vocab_size

    def decode(self, tokens, *, after):
        return "".join(chr(ord("A") + token) for token in tokens)


def test_a_short_prompt_waits_for_two_dispatches_at_most():
    """Its first token is there before a third, with 32 others at work: counted, not timed."""
    busy = Engine(CONFIG, random_params(CONFIG), slots=33, stop_ids=[], tokenizer=Letters())
    for number in range(32):
        prompt = PROMPTS[number % 6]  # those that leave room for many tokens
        busy.submit(Request(prompt, 1000, seed=number), lambda _: None, lambda _: None)
    busy.turn(read_at_most=READ_AT_MOST)  # the first are read and decode; others are being read
    while busy.num_running < 32:
        busy.turn(read_at_most=READ_AT_MOST)
    pieces = []
    busy.submit(Request(PROMPTS[0], 9), lambda _: None, pieces.append)
    before = busy.stats.dispatches
    while not pieces:
        busy.turn(read_at_most=READ_AT_MOST)
    assert busy.num_running == 33 and 0 < busy.stats.dispatches - before < 3
    busy.abandon()
