"""Results whose every text is hostile, for the tests of the page."""

from tests.eval.results import row, write_result

MARKUP = "</script><script>document.title='hacked'</script><img src=x onerror=\"hacked=1\"><!--"
CONTROL = "\x1b[31mred \u202egnp.exe\u202c \u2028 \x9b tab\there"
HALF, ARABIC, EMOJI = "\ud800half\udfff", "البحرُ أزرقُ", "👩\u200d👩\u200d👧 中文"
LONG = "A" * 30_000 + " the end"
FEW = "Example: one and one is two, which any number of camels can show\nExample: 1 + 1 = 2\n\n"


def write_hostile(folder):
    """A folder of two suites of one task."""
    for i, name in enumerate((f"base {MARKUP}", f"tuned {ARABIC}")):
        rows = [
            row("markup" + MARKUP, i, prompt=FEW + MARKUP + "\n", output=MARKUP, group=MARKUP),
            row("control", 1 - i, prompt=FEW + CONTROL + "\n", output=CONTROL),
            row("half" + HALF, 1, prompt=FEW + "Q?\n", output=HALF + ARABIC + EMOJI, gold=HALF),
            row("long", 0, prompt=FEW + "L?\n", output=LONG, prediction=LONG),
            row("failed", 0, prompt=FEW + "F?\n", output=None, error=f"timed out {MARKUP}"),
            *(
                row(f"bulk{n}", int((n + i) % 3 == 0), prompt=f"{FEW}Bulk {n}?\n")
                for n in range(40)
            ),
        ]
        write_result(folder / f"suite{i}" / "gsm_cot", rows, model=name,
                     warnings=[f"say {MARKUP} {CONTROL}"])  # fmt: skip
    return folder
