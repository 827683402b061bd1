import time

from tulu_jax.generate import Engine, Request
from tulu_jax.generate.stats import Stats, joined

from .test_engine import CONFIG, PROMPTS, random_params


def test_lines_say_what_was_done():
    stats = Stats(read_tokens=60, read_seconds=2.0, decoded_tokens=90, decode_seconds=3.0)
    stats.count_prompt(100, 40)
    stats.slot_steps = 120
    stats.compile_seconds = 1.25
    assert stats.lines() == [
        "prompts  100 tokens, 40 % shared, read at 30 tokens/s",
        "answers  90 tokens, 75 % of slots busy, decoded at 30 tokens/s",
        "compiled in 1.2 s",
    ]


def test_a_slot_is_given_on_when_its_answer_is_whole():
    engine = Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[])
    engine.run([Request(PROMPTS[0], count) for count in (30, 21, 10, 3, 2)])
    assert engine.stats.decoded_tokens == 66
    assert engine.stats.slot_steps == 2 * 33  # 30 and 3 through the one, 21, 10 and 2 the other


def test_no_rate_where_all_was_compilation():
    stats = Stats(decoded_tokens=90, slot_steps=90)
    assert stats.lines() == ["answers  90 tokens, 100 % of slots busy"]
    assert Stats().lines() == []


def test_seconds_are_added():
    stats = Stats()
    for _ in range(2):
        with stats.timed("read_seconds"):
            time.sleep(0.01)
    assert stats.read_seconds >= 0.02


def test_the_share_of_the_memorys_bandwidth():
    stats = Stats(decode_seconds=2.0, read_bytes=10**12, bandwidth=8e11, kernel="paged, as it is")
    assert stats.lines() == [
        "memory   500.0 GB/s read in decoding, 62% of 800",
        "kernel   paged, as it is",
    ]
    stats.bandwidth = None
    assert stats.lines()[0] == "memory   500.0 GB/s read in decoding"


def test_numbers_of_engines_that_work_at_one_time():
    one = Stats(decoded_tokens=90, decode_seconds=3.0, read_bytes=5, bandwidth=2.0, kernel="k")
    found = joined([one, Stats(decoded_tokens=30, decode_seconds=1.0, bandwidth=2.0)])
    assert (found.decoded_tokens, found.decode_seconds, found.read_bytes) == (120, 2.0, 5)
    assert (found.bandwidth, found.kernel) == (4.0, "k")
    assert joined([one, Stats()]).bandwidth is None
